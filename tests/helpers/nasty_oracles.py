"""Files in place of an oracle that ask for far more time or memory than they take up on the disk: pickles and .npz files."""

import pickle
import struct
import zipfile

import numpy as np

from helpers.nasty_files import zip_of


def pickle_of(*values, call):
    """A pickled list of one call of a named function, "module name"; `values` are programs that leave its arguments."""
    module, name = call.split()
    return b"\x80\x03]c" + f"{module}\n{name}\n(".encode() + b"".join(values) + b"tRa."


def doubled_tuple(depth=40):
    """The program of a tuple of two equal tuples, each of two equal tuples, and so on: to format or to hash it takes 2^40 steps."""
    return b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(depth))


def pickle_with_doubled_type():
    """A doubled tuple in place of the name of a type."""
    return pickle_of(doubled_tuple(), b"K\x00K\x01", call="numpy dtype")


def pickle_with_doubled_shape():
    """A doubled tuple in place of a shape."""
    return pickle_of(b"C\x00", b"cnumpy\ndtype\n(U\x02f4tR", doubled_tuple(), b"U\x01C", call="numpy.core.numeric _frombuffer")


def pickle_with_doubled_order():
    """A doubled tuple in place of an array's order, and of a byte order."""
    return pickle_of(b"C\x00", b"cnumpy\ndtype\n(U\x02f4tR", b"K\x00\x85", doubled_tuple(), call="numpy.core.numeric _frombuffer")


def pickle_with_doubled_byte_order():
    """A doubled tuple in place of a byte order."""
    return b"\x80\x02]cnumpy\ndtype\n(U\x02f4tR(K\x03" + doubled_tuple() + b"tba."


def pickle_with_doubled_key():
    """A doubled tuple as the key of a dictionary."""
    return b"\x80\x02}" + doubled_tuple() + b"K\x00s."


def pickle_with_doubled_member():
    """A doubled tuple as a member of a set."""
    return b"\x80\x04\x8f(" + doubled_tuple() + b"\x90."


def pickle_with_doubled_function():
    """A doubled tuple as the name of a function."""
    return b"\x80\x04\x8c\x05numpy" + doubled_tuple() + b"\x93."


def pickle_of_marks(number=2_000_000):
    """Marks, each of which opens another stack."""
    return b"\x80\x02" + b"(" * number + b"."


def pickle_of_one_text_many_times(size=200_000, times=1_000):
    """Bytes that are decoded from one text again and again."""
    text = b"X" + struct.pack("<I", size) + b"a" * size + b"q\x01"
    first = b"c_codecs\nencode\nq\x00(" + text + b"X\x06\x00\x00\x00latin1q\x02tR"
    return b"\x80\x02](" + first + b"h\x00h\x01h\x02\x86R" * (times - 1) + b"e."


def pickle_of_one_buffer_many_times(size=200_000, times=1_000):
    """Arrays that share their bytes, in the order that makes numpy copy them."""
    buffer = b"\x96" + struct.pack("<Q", 4 * size) + bytes(4 * size) + b"q\x01"
    kind = b"cnumpy\ndtype\n(\x8c\x02f4tRq\x02"
    shape = b"J" + struct.pack("<i", size // 2) + b"K\x02\x86q\x03"
    first = b"cnumpy.core.numeric\n_frombuffer\nq\x00(" + buffer + kind + shape + b"\x8c\x01Fq\x04tR"
    return b"\x80\x05](" + first + b"h\x00(h\x01h\x02h\x03h\x04tR" * (times - 1) + b"e."


def pickle_of_a_shape(lengths):
    """An array of no bytes with a shape of any length, of numbers of any size."""
    numbers = b"".join(pickle.dumps(length, protocol=2)[2:-1] for length in lengths)
    return pickle_of(
        b"C\x00", b"cnumpy\ndtype\n(U\x02f4tR", b"(" + numbers + b"t", b"U\x01C", call="numpy.core.numeric _frombuffer"
    )


def pickle_of_absurd_lengths():
    """A shape of 5,000 numbers of 2,000 bits each."""
    return pickle_of_a_shape([2**2000] * 5_000)


def pickle_of_many_dimensions():
    """A shape of 5,000 times 0."""
    return pickle_of_a_shape([0] * 5_000)


def pickle_with_long_names():
    """A name of a million characters, with an escape sequence of terminals in it."""
    return b"c\x1b[2J" + b"a" * 1_000_000 + b"\nb\n."


PICKLES = {
    build.__name__: build
    for build in (
        pickle_with_doubled_type,
        pickle_with_doubled_shape,
        pickle_with_doubled_order,
        pickle_with_doubled_byte_order,
        pickle_with_doubled_key,
        pickle_with_doubled_member,
        pickle_with_doubled_function,
        pickle_of_marks,
        pickle_of_one_text_many_times,
        pickle_of_one_buffer_many_times,
        pickle_of_absurd_lengths,
        pickle_of_many_dimensions,
        pickle_with_long_names,
    )
}


def npy(shape="(3,)", descr="<f4", data=b"", fortran="False", length=None):
    """An array's header as it is given, with any data behind it; `length` is what it says of the header's own length."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) if length is None else length) + header + data


def oracle_npz(vocab_size=11, emb_dim=3, hidden=4, method=zipfile.ZIP_DEFLATED, **others):
    """An oracle of zeros, with other members in place of some of its own."""
    shapes = {"emb": (vocab_size, emb_dim), "Wo": (hidden, vocab_size), "bo": (vocab_size,)}
    for gate in ("i", "f", "og", "c"):
        shapes |= {f"W{gate}": (emb_dim, hidden), f"U{gate}": (hidden, hidden), f"b{gate}": (hidden,)}
    members = {name: npy(shape, data=bytes(4 * int(np.prod(shape)))) for name, shape in shapes.items() if name not in others}
    return zip_of({f"{name}.npy": content for name, content in {**members, **others}.items()}, method)


def npz_of_zeros():
    """An oracle of 40 MB that takes up 40 KB."""
    return oracle_npz(vocab_size=100_000, emb_dim=50, hidden=50)


def npz_of_a_large_array_beside_small_ones():
    """An array of 40 MB, in 40 KB, that fits no other one."""
    return oracle_npz(Uc=npy((10_000_000,), data=bytes(40_000_000)))


def npz_that_claims_much():
    """Headers of terabytes, with nothing behind them."""
    return oracle_npz(emb=npy((10**9, 1000)), Wo=npy((4, 10**9)), bo=npy((10**9,)))


def npz_with_absurd_lengths():
    """A shape of numbers of hundreds of digits."""
    return oracle_npz(emb=npy((10**300, 10**300)))


def npz_with_negative_lengths():
    """A shape whose product fits, of negative numbers."""
    return oracle_npz(emb=npy((-11, -3), data=bytes(4 * 33)))


def npz_with_a_long_header():
    """A header of 65,000 brackets."""
    return oracle_npz(emb=npy("(" * 65_000))


def npz_of_deep_brackets():
    """A header of nested brackets that is not too long to be read."""
    return oracle_npz(emb=npy("(" * 400 + ")" * 400))


def npz_with_nested_type():
    """A type that is an array of arrays, 10^9 numbers each."""
    return oracle_npz(emb=npy((11, 3), descr=("<f4", (10**9,))))


def npz_in_another_compression():
    """LZMA, of which a few bytes unpack to megabytes before they can be counted."""
    return oracle_npz(method=zipfile.ZIP_LZMA, emb=npy((11, 3), data=bytes(10_000_000)))


NPZS = {
    build.__name__: build
    for build in (
        npz_of_zeros,
        npz_of_a_large_array_beside_small_ones,
        npz_that_claims_much,
        npz_with_absurd_lengths,
        npz_with_negative_lengths,
        npz_with_a_long_header,
        npz_of_deep_brackets,
        npz_with_nested_type,
        npz_in_another_compression,
    )
}
