"""A CUDA graph's stand-in on the CPU: it records the operations of a function and repeats them on the same memory.

As with a graph, a repetition runs no Python of the function, so whatever that took from Python stays as it was at the recording;
and operations that would make a GPU wait or copy from the CPU can't be recorded.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORBIDDEN = {
    torch.ops.aten._local_scalar_dense.default: "reads a value",
    torch.ops.aten.nonzero.default: "has a result whose size depends on values",
    torch.ops.aten.masked_select.default: "has a result whose size depends on values",
    torch.ops.aten.repeat_interleave.Tensor: "has a result whose size depends on values",
    torch.ops.aten._unique2.default: "has a result whose size depends on values",
    torch.ops.aten.lift_fresh.default: "brings numbers from Python",
    torch.ops.aten.equal.default: "compares values",
}


def why_not(function, args):
    """Why a CUDA graph can't hold an operation on a GPU's tensors, or None."""
    masked = function in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)
    if masked and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
        return "looks for the true values of a mask"
    return FORBIDDEN.get(function)


class _Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if reason := why_not(function, args):
            raise RuntimeError(f"{function} {reason}")
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, torch.is_grad_enabled(), result))
        return result


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


class TapeRecorder:
    """A `fast.cuda_graphs.Recorder`.

    Attributes:
        played: how often something was played back.
    """

    def __init__(self, changed=()):
        self.changed = list(changed)  # what functions change in place; a recording must leave it as it is
        self.played = 0

    def warm_up(self, function, inputs):
        return function(*inputs)

    def record(self, function, inputs):
        before = [tensor.detach().clone() for tensor in self.changed]
        with _Tape() as tape:
            result = function(*inputs)
        with torch.no_grad():
            for tensor, value in zip(self.changed, before, strict=True):
                tensor.copy_(value)
        return lambda: self.play(tape.calls), result

    def play(self, calls):
        self.played += 1
        with torch._C._AutoDispatchBelowAutograd():  # where the tape was, or in-place changes of weights would be refused
            self._repeat(calls)

    def _repeat(self, calls):
        for function, args, kwargs, with_gradient, recorded in calls:
            given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, tuple(kwargs.values())))}
            with torch.set_grad_enabled(with_gradient):  # an LSTM keeps more where gradients are taken
                repeated = function(*args, **kwargs)
            for new, old in zip(_tensors(repeated), _tensors(recorded), strict=True):
                if old.untyped_storage().data_ptr() not in given:  # neither a view of an argument nor one that was changed
                    old.copy_(new)
