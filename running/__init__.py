"""A run as a folder: its flags, its state on disk, the loop that counts and saves, its logs."""
