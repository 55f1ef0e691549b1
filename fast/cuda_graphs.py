"""Steps of fixed shapes, recorded once and then played back: a GPU needs longer to be told of a small step than to do it.

A CUDA graph repeats the kernels of one execution, with the same memory and the same numbers from Python. So a step that is to be
recorded takes its tensors as arguments, changes weights and optimiser states in place, looks at no value, sends nothing to the
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
WARM_UP = 3  # ordinary calls before the recording, in which libraries and optimiser states set themselves up


class Steps:
    """Runs each step as it is."""

    def run(self, name: str, step: Callable[..., Result], *inputs: Tensor) -> Result:
        """Do a step and return what it returns.

        Args:
            name: the step's name. Calls with the same name and the same shapes must mean the same step.
            step: what to do; its other arguments are bound to it.
            inputs: tensors, whose values may differ from call to call.
        """
        return step(*inputs)

    def forget(self) -> None:
        """Say that tensors which steps change are no longer the same ones."""


PLAIN_STEPS = Steps()


class Recorder(Protocol):
    """What `RecordedSteps` needs from a device."""

    def aside(self, step: Callable[..., Result], inputs: Sequence[Tensor]) -> Result:
        """Do the step where recordings are made."""
        ...

    def record(self, step: Callable[..., Result], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Result]:
        """Record the step without doing it; returns what plays it back, and where the result will be. Raises RuntimeError."""
        ...


@dataclass
class Recording(Generic[Result]):
    """A step: its calls so far, and once it is recorded what it reads, what plays it back, and where its result will be."""

    calls: int = 0
    inputs: tuple[Tensor, ...] = ()
    play: Callable[[], None] | None = None
    result: Result | None = None


class RecordedSteps(Steps):
    """Records each step at its fourth call and plays it back from then on. Where that fails, steps are run as they are, after one
    line on stderr.

    Args:
        recorder: how the device records.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.recordings: dict[tuple, Recording] = {}
        self.working = True

    def run(self, name: str, step: Callable[..., Result], *inputs: Tensor) -> Result:
        """As `Steps.run`; the result is the caller's own."""
        if not self.working:
            return step(*inputs)
        recording = self.recordings.setdefault((name, *(tensor.shape for tensor in inputs)), Recording())
        recording.calls += 1
        if recording.calls <= WARM_UP:
            return self.recorder.aside(step, inputs)
        if recording.play is None:
            recording.inputs = tuple(tensor.clone() for tensor in inputs)
            try:
                recording.play, recording.result = self.recorder.record(step, recording.inputs)
            except RuntimeError as error:
                self.working = False
                cause = str(error.__context__ or error).strip()  # the error of the recording only says that there was one
                print(f"warning: no CUDA graphs, so steps take longer: {name}: {cause.partition(chr(10))[0]}", file=sys.stderr)
            if not self.working:  # not before the error is gone, which holds the memory of what has failed
                self.forget()
                return step(*inputs)
        for own, given in zip(recording.inputs, inputs, strict=True):
            own.copy_(given)
        recording.play()
        result = recording.result
        return result.clone() if isinstance(result, Tensor) else tuple(tensor.clone() for tensor in result)

    def forget(self) -> None:
        """Begin all recordings anew."""
        self.recordings.clear()


class CudaRecorder:
    """Records CUDA graphs on the current CUDA device.

    Args:
        generators: the device's random streams that steps draw from; each playback goes on where they are.
    """

    def __init__(self, generators: Sequence[torch.Generator]):
        self.generators = generators
        self.stream = torch.cuda.Stream()

    def aside(self, step: Callable[..., Result], inputs: Sequence[Tensor]) -> Result:
        """Do the step on the stream of the recordings."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = step(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def record(self, step: Callable[..., Result], inputs: Sequence[Tensor]) -> tuple[Callable[[], None], Result]:
        """Record the step as a CUDA graph with memory of its own."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        current = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                result = step(*inputs)
        except BaseException:
            # A recording that fails leaves its stream behind, and random streams that refuse to draw outside of recordings.
            torch.cuda.set_stream(current)
            for generator in (*self.generators, torch.cuda.default_generators[torch.cuda.current_device()]):
                generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph.replay, result


def make_steps(device: torch.device, record: bool, generators: Sequence[torch.Generator]) -> Steps:
    """The runner of a training's steps: recorded on CUDA, where that is wanted."""
    return RecordedSteps(CudaRecorder(generators)) if record and device.type == "cuda" else PLAIN_STEPS


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, without waiting for the work that the device still has to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
