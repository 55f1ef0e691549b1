"""The reader of the authors' pickles refuses everything else, and runs no code."""

import pickle

import numpy as np
import pytest
from helpers.attacks import Attack, touch
from helpers.limits import at_most
from helpers.nasty_oracles import PICKLES

from oracle import load_oracle
from support.authors_pickle import read_arrays
from support.errors import UserError


def from_buffer(*arguments):
    """The call by which a pickle of protocol 5 makes an array."""
    return Attack(np.zeros(1).__reduce_ex__(5)[0], *arguments)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "attack",
    [
        lambda path: touch(path),
        lambda path: [touch(path)] * 15,
        lambda path: Attack(getattr, "text", "__class__"),
        lambda path: Attack(eval, f"open({str(path)!r}, 'w')"),
        lambda path: Attack(exec, f"open({str(path)!r}, 'w')"),
        lambda path: Attack(np.load, str(path)),
        lambda path: Attack(np.ndarray, (10**6, 10**6)),
        lambda path: [np.array([touch(path)], dtype=object)] * 15,
        lambda path: [np.zeros(3, dtype=[("a", "f4")])] * 15,
        lambda path: [np.zeros(3)] * 15,  # float64
        lambda path: [np.zeros(3, np.float32)] * 14,
        lambda path: {"emb": np.zeros(3, np.float32)},
        lambda path: [from_buffer(bytes(12), np.dtype("f4"), (4,), "C")] * 15,  # more than it holds
        lambda path: [from_buffer(bytes(12), np.dtype("f4"), (-1,), "C")] * 15,
        lambda path: [from_buffer(bytes(12), np.dtype("f4"), 3, "C")] * 15,
        lambda path: [from_buffer(bytes(12), np.dtype("f4"), (3,), "K", (0,))] * 15,
        lambda path: [from_buffer(bytes(12), np.dtype("i4"), (3,), "C")] * 15,
        lambda path: [from_buffer(bytes(12), "f4", (3,), "C")] * 15,
        lambda path: [from_buffer("twelve bytes", np.dtype("f4"), (3,), "C")] * 15,
        lambda path: [from_buffer([0] * 12, np.dtype("f4"), (3,), "C")] * 15,
        lambda path: [from_buffer(12, np.dtype("f4"), (3,), "C")] * 15,
        lambda path: "text",
        lambda path: [np.float32(1.0)] * 15,
    ],
)
def test_other_pickles_are_refused_and_call_nothing(attack, protocol, tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "bad").write_bytes(pickle.dumps(attack(trace), protocol=protocol))
    with pytest.raises(UserError, match="--oracle_params"):
        load_oracle(tmp_path / "bad")
    assert not trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x80",
        b"garbage that is no pickle",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"\x80\x02cnumpy\nndarray\n(K\x05tR.",  # calls ndarray
        b"\x80\x02ccodecs\nencode\n.",
        b"\x80\x02cnumpy\ndtype\n}U\x04nameU\x01xsb.",  # state for a class
        b"\x80\x02c_codecs\nencode\n(N}U\x0c__defaults__(lstub.",
        b"\x80\x04r\xff\xff\xff\x7f.",  # a place in the memo that would take gigabytes
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # bytes longer than the file
        b"\x80\x05\x96" + (2**35).to_bytes(8, "little") + b".",  # the same of a bytearray, which would be filled with zeros
        b"\x80\x05\x96" + (2**30).to_bytes(8, "little") + b"\0.",
        b"\x80\x05\x97.",  # a buffer beside the file
        b"\x80\x02\x82\x01.",  # an extension
        b"(" * 100_000,
    ],
)
def test_handmade_pickle_programs_are_refused(program, tmp_path):
    (tmp_path / "bad").write_bytes(program)
    with pytest.raises(UserError):
        load_oracle(tmp_path / "bad")


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path):
    data = pickle.dumps([np.zeros((2, 3), np.float32)] * 15, protocol=2)
    shape = data.replace(b"K\x02K\x03", b"K\xffK\xff")
    assert shape != data
    (tmp_path / "bad").write_bytes(shape)
    with pytest.raises(UserError, match="bytes for an array"):
        load_oracle(tmp_path / "bad")


@pytest.mark.parametrize("name", PICKLES)
def test_no_pickle_takes_more_time_or_memory_than_its_size_justifies(name, tmp_path):
    (tmp_path / "bad").write_bytes(PICKLES[name]())
    with at_most(seconds=5, megabytes=10), pytest.raises(UserError, match="no pickled list of float32 arrays") as caught:
        load_oracle(tmp_path / "bad")
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_arrays_of_a_file_are_read_once_each(tmp_path):
    """The limit on instructions is far above what any protocol needs."""
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3) + number for number in range(15)]
    for protocol in range(6):
        (tmp_path / "good").write_bytes(pickle.dumps(arrays, protocol=protocol))
        np.testing.assert_array_equal(read_arrays(tmp_path / "good"), arrays)
    (tmp_path / "shared").write_bytes(pickle.dumps([arrays[0]] * 15, protocol=2))
    with pytest.raises(ValueError, match="share their bytes"):
        read_arrays(tmp_path / "shared")
