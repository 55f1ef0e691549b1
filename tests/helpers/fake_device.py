"""A fake device for machines without a GPU: "meta" by name, its tensors in the CPU's memory.

What fails on CUDA fails on it: operations on tensors of different devices, random streams of another device, and NumPy; and inside
a function that could be recorded (`StrictRunner`) all that a CUDA graph can't hold.
"""

import contextlib
from unittest import mock

import torch
import torch._dynamo  # torch imports it late, and it must not meet the changed torch.Generator
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import discriminator
from fast import categorical
from fast.cuda_graphs import Runner
from helpers.tape import why_not

FAKE = torch.device("meta")
CPU = torch.device("cpu")


class FakeDeviceTensor(torch.Tensor):
    """A tensor on the fake device; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held):
        """A tensor on FAKE with the shape of the one that it holds."""
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=FAKE
        )

    is_meta = False  # or loading would warn

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"FakeDeviceTensor({self.held})"

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)

    def tolist(self):
        """The numbers in Python."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})


class _Stream(torch.Generator):
    """A random stream that says which device it is for."""

    def __new__(cls, device="cpu"):
        stream = super().__new__(cls)
        _streams[stream._cdata] = torch.device(device)
        return stream

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        """Where numbers may be drawn with it."""
        return _streams[self._cdata]


_streams = {}  # the device of each random stream, by what torch knows it by
_in_recordable = False


def _leaves(values):
    """All that is in nested tuples and lists; torch's own functions for any tree take several times as long as the operations."""
    leaves = []
    for value in values:
        if isinstance(value, (tuple, list)):
            leaves += _leaves(value)
        else:
            leaves.append(value)
    return leaves


def _map(function, value):
    if isinstance(value, (tuple, list)):
        return type(value)([_map(function, item) for item in value])
    return function(value)


def _held(leaf):
    return leaf.held if isinstance(leaf, FakeDeviceTensor) else leaf


def _call(function, args, kwargs):
    leaves = _leaves([*args, *kwargs.values()])
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, FakeDeviceTensor)]
    here = [tensor for tensor in tensors if not isinstance(tensor, FakeDeviceTensor)]
    target = kwargs.get("device") or (FAKE if there else CPU)
    moves = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if there and any(tensor.dim() for tensor in here) and not moves:
        raise RuntimeError(f"{function}: tensors on different devices")
    crosses = bool(there and here) or (there and target.type == "cpu") or (here and target == FAKE)
    if _in_recordable and (crosses or (there and why_not(function, args))):
        raise RuntimeError(f"{function} inside a function that is to be recorded")
    for leaf in leaves:
        if isinstance(leaf, torch._C.Generator) and _streams.get(leaf._cdata, CPU) != target:
            raise RuntimeError(f"{function}: a random stream of another device than {target}")
    held_args, held_kwargs = _map(_held, args), {name: _map(_held, value) for name, value in kwargs.items()}
    if held_kwargs.get("device") is not None:
        held_kwargs["device"] = CPU
    result = function(*held_args, **held_kwargs)
    if function is torch.ops.aten.copy_.default:
        return args[0]
    if target.type == "cpu":
        if any(result is tensor.held for tensor in there):  # a move that found nothing to do
            return result.clone()
        return result
    result = _map(lambda leaf: FakeDeviceTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)
    return return_and_correct_aliasing(function, args, kwargs, result) if there and not moves else result


class StrictRunner(Runner):
    """Calls functions directly, and fails where a CUDA graph would: at reads of values and at copies between devices.

    Attributes:
        names: of the functions that were called.
    """

    def __init__(self):
        self.names = set()

    def run(self, name, function, *inputs):
        """As `Runner.run`."""
        global _in_recordable
        self.names.add(name)
        assert all(isinstance(tensor, FakeDeviceTensor) for tensor in inputs), f"{name}: its tensors are not on the device"
        _in_recordable = True
        try:
            return function(*inputs)
        finally:
            _in_recordable = False


@contextlib.contextmanager
def fake_device():
    """Inside, FAKE can be used as a device."""
    sizes = (categorical.CHUNK_ELEMENTS, categorical.DRAW_ELEMENTS, categorical.MAX_ROWS)
    sizes += (discriminator.SCORING_ROWS, discriminator.SCORING_ELEMENTS)
    fused = "torch.optim.optimizer._get_fused_kernels_supported_devices"
    with contextlib.ExitStack() as stack:
        for table in sizes:
            stack.enter_context(mock.patch.dict(table, {FAKE.type: table["cuda"]}))
        stack.enter_context(mock.patch("torch.Generator", _Stream))
        stack.enter_context(mock.patch(fused, return_value=["cpu", FAKE.type]))
        stack.enter_context(_Device())
        yield
