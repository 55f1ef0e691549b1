"""Where the time goes: a trace of the third epoch of each phase, for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from support.files import write_atomically

SKIPPED, WARM_UP, RECORDED = 1, 1, 1  # epochs of a phase: the first ones allocate memory and start threads
ROWS = 40  # of the table of operations


@contextlib.contextmanager
def profiled(folder: Path | None, phase: str, device: torch.device) -> Iterator[Callable[[], None]]:
    """Record one epoch of a phase. The body calls what this yields after each epoch; with folder=None nothing is recorded.

    Writes `<phase>.json.gz`, the trace, and `<phase>.txt`, the operations by the time they take, when the epoch is over.

    Raises:
        OSError: a file can't be written.
    """
    if folder is None:
        yield lambda: None
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)

    def write(profiler: torch.profiler.profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{phase}.partial.json.gz"
        profiler.export_chrome_trace(str(partial))
        partial.replace(folder / f"{phase}.json.gz")
        by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=ROWS)
        write_atomically(folder / f"{phase}.txt", lambda file: file.write(table.encode()))

    schedule = torch.profiler.schedule(wait=SKIPPED, warmup=WARM_UP, active=RECORDED, repeat=1)
    with torch.profiler.profile(
        activities=activities, schedule=schedule, on_trace_ready=write, experimental_config=_all_threads()
    ) as profiler:
        yield profiler.step


def _all_threads() -> object | None:
    """The setting that makes the profiler record the threads that draw and score; None where this version of torch lacks it."""
    try:
        return torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    except (AttributeError, TypeError):
        return None
