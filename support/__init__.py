"""Helpers that are independent of SeqGAN: errors, files, device and threads, random streams, statistics."""
