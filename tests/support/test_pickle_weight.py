"""Pickles that unfold into more than they are."""

import io
import pickle
import zipfile

import pytest
import torch

from support.pickle_weight import TooHeavyError, check_weight


def doubled(steps: int) -> bytes:
    """A tuple of one tuple twice, and so on."""
    return b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * steps + b"."


@pytest.mark.parametrize("protocol", range(6))
def test_the_weight_is_the_number_of_objects_with_repetitions(protocol):
    value = {"a": [1, 2.5, None, (True, "x")], "b": ("y",) * 3}
    check_weight(pickle.dumps(value, protocol), most=60)
    with pytest.raises(TooHeavyError, match="repeats itself"):
        check_weight(pickle.dumps(value, protocol), most=6)


def test_a_few_bytes_that_double_something_are_too_heavy():
    check_weight(doubled(10))
    with pytest.raises(TooHeavyError, match="repeats itself"):
        check_weight(doubled(25))
    with pytest.raises(TooHeavyError, match="repeats itself"):
        check_weight(b"\x80\x02)" + b"2\x86" * 25 + b".")  # DUP


@pytest.mark.parametrize("data", [b"", b".", b"\x80\x02h\x05.", b"\x80\x02t.", b"\xff", pickle.dumps([1])[:-3]])
def test_broken_pickles_are_refused(data):
    with pytest.raises(TooHeavyError, match="broken"):
        check_weight(data)


def test_what_torch_writes_is_light():
    data, model = io.BytesIO(), torch.nn.LSTM(3, 4)
    torch.save({"model": model.state_dict(), "more": [{"x": (0.9, 0.999)}] * 50}, data)
    with zipfile.ZipFile(data) as archive:
        check_weight(archive.read("archive/data.pkl"), most=1000)
