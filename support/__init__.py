"""What knows nothing of SeqGAN: errors, files, threads, random streams, statistics."""
