"""Helpers that are independent of SeqGAN: errors, files, caches, device and threads, random streams, statistics."""
