"""MIDI files as a data set: reading, writing, measuring and showing tunes. Knows nothing of training.

Token 0 is a rest; tokens 1 to 88 are the piano's keys, MIDI pitches 21 to 108.
"""

REST, LOWEST_PITCH, NUM_PITCHES = 0, 21, 88
VOCAB_SIZE = NUM_PITCHES + 1  # V = 89
GRIDS = ("seconds", "eighth")
