"""Texts with parts that strangers chose, such as the names of files, on one line of a terminal."""

LONGEST = 2000  # characters that are shown


def one_line(text: str) -> str:
    """The text with single blanks between its words, and with escapes for characters that would steer the terminal."""
    words = " ".join(text.split())
    if len(words) > LONGEST:
        words = f"{words[:LONGEST]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
