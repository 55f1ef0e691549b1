"""Faster ways to compute what the files at the root say, each held to the plain way by a test."""
