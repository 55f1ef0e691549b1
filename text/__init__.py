"""Lines of text as a data set: vocabulary, reading, measuring. Knows nothing of training.

Token 0 ends a line and pads it; every sequence is also read from it. Token 1 stands for words that the vocabulary lacks.
"""

END, UNKNOWN = 0, 1
SPECIAL = ("<end>", "<unk>")
KINDS = ("words", "chars", "ids")
LONG = ("cut", "split", "drop")
