"""CUDA graphs: operations of fixed shapes, recorded once and then replayed, as launching small kernels one by one is slow.

A CUDA graph repeats the kernels of one execution, with the same memory and the same numbers from Python. So a function that is to
be recorded takes its tensors as arguments, changes weights and optimiser states in place, reads no value, copies nothing to the
device, and counts nothing in Python. Weights that it only reads may change between calls: it reads them where they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])
WARM_UP = 3  # ordinary calls before the recording, in which libraries and optimiser states are set up


class Runner:
    """Calls each function directly."""

    def run(self, name: str, function: Callable[..., Result], *inputs: Tensor) -> Result:
        """Call a function and return what it returns.

        Args:
            name: what it computes. Calls with the same name and the same shapes must compute the same.
            function: what to call; its other arguments are bound to it.
            inputs: tensors, whose values may differ from call to call.
        """
        return function(*inputs)

    def forget(self) -> None:
        """Discard recordings; called after tensors that functions change were replaced, as loading a checkpoint does."""


PLAIN_RUNNER = Runner()


class Recorder(Protocol):
    """What `GraphRunner` needs from a device."""

    def warm_up(self, function: Callable[..., Result], inputs: Sequence[Tensor]) -> Result:
        """Call the function on the stream of the recordings."""
        ...

    def record(self, function: Callable[..., Result], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Result]:
        """Record the function without executing it; returns what replays it, and where its result will be. Raises RuntimeError."""
        ...


@dataclass
class Recording(Generic[Result]):
    """A function's calls so far, and once it is recorded its inputs, what replays it, and where its result will be."""

    calls: int = 0
    inputs: tuple[Tensor, ...] = ()
    replay: Callable[[], None] | None = None
    result: Result | None = None


class GraphRunner(Runner):
    """Records each function at its fourth call and replays it from then on.

    Where a recording fails, all functions are called directly from then on, after one warning on stderr.

    Args:
        recorder: how the device records.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.recordings: dict[tuple, Recording] = {}
        self.working = True

    def run(self, name: str, function: Callable[..., Result], *inputs: Tensor) -> Result:
        """As `Runner.run`; the result is the caller's own copy."""
        if not self.working:
            return function(*inputs)
        recording = self.recordings.setdefault((name, *(tensor.shape for tensor in inputs)), Recording())
        recording.calls += 1
        if recording.calls <= WARM_UP:
            return self.recorder.warm_up(function, inputs)
        if recording.replay is None:
            recording.inputs = tuple(tensor.clone() for tensor in inputs)
            try:
                recording.replay, recording.result = self.recorder.record(function, recording.inputs)
            except RuntimeError as error:
                self.working = False
                cause = str(error.__context__ or error).strip()  # the recording's own error does not name the cause
                print(f"warning: no CUDA graphs, so training is slower: {name}: {cause.partition(chr(10))[0]}", file=sys.stderr)
            if not self.working:  # retry outside `except`: the exception keeps the failed recording's memory alive
                self.forget()
                return function(*inputs)
        for own, given in zip(recording.inputs, inputs, strict=True):
            own.copy_(given)
        recording.replay()
        result = recording.result
        return result.clone() if isinstance(result, Tensor) else tuple(tensor.clone() for tensor in result)

    def forget(self) -> None:
        """Discard all recordings."""
        self.recordings.clear()


class CudaRecorder:
    """Records CUDA graphs on the current CUDA device.

    Args:
        generators: the device's random streams that functions draw from; each replay continues them.
    """

    def __init__(self, generators: Sequence[torch.Generator]):
        self.generators = generators
        self.stream = torch.cuda.Stream()

    def warm_up(self, function: Callable[..., Result], inputs: Sequence[Tensor]) -> Result:
        """Call the function on the stream of the recordings."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = function(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(self, function: Callable[..., Result], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Result]:
        """Record the function as a CUDA graph with memory of its own."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        current = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                result = function(*inputs)
        except BaseException:
            # A failed recording leaves its stream current, and random streams that refuse to draw outside of recordings.
            torch.cuda.set_stream(current)
            for generator in (*self.generators, torch.cuda.default_generators[torch.cuda.current_device()]):
                generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph.replay, result


def make_runner(device: torch.device, record: bool, generators: Sequence[torch.Generator]) -> Runner:
    """The runner of a training: CUDA graphs on CUDA where `record` is true, else direct calls."""
    return GraphRunner(CudaRecorder(generators)) if record and device.type == "cuda" else PLAIN_RUNNER
