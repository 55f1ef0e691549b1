"""Faster implementations of what the files at the root compute, each tested against the plain one."""
