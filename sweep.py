"""Many runs of main.py: `python sweep.py --name rewards --seeds 1-3 --set reward=discriminator,constant -- --preset smoke`.

The runs are every seed with every row, the rows being the combinations of the values of --set. submitit (requirements-sweep.txt)
starts them, side by side on this machine or as jobs of a Slurm cluster. The same command goes on where it was interrupted:
docs/sweeps.md.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import report
from running.flags import MAX_THREADS
from running.sweep import OUT, Sweep, make_task
from running.sweep_clusters import (
    CLUSTERS,
    Debug,
    Environment,
    Local,
    Slurm,
    batch_file,
    choose_cluster,
    count_cores,
    find_devices,
    load_submitit,
    slurm_parameters,
)
from running.sweep_job import STOPPED, Task, take_lock
from running.sweep_plan import PlannedRun, Row, find_runs_of, parse_rows, parse_seeds, plan_runs
from support.command_line import Parser, boolean, whole
from support.errors import UserError, exit_with_one_line

MAIN = Path(__file__).resolve().with_name("main.py")
LOCK_TRIES = 10  # a run that looks whether its sweep still lives holds the lock for a moment


def build_parser() -> Parser:
    """The command line, without the flags of main.py."""
    parser = Parser(
        usage="python sweep.py (--name NAME | --folder DIR) --seeds 1-3,7 [--set FLAG=VALUE,...]... [FLAGS] "
        "[-- FLAGS OF main.py [--row NAME FLAGS...]...]",
        description="Train many runs with main.py: every row with every seed, each in NAME/ROW-SEED; then print report.py's table. "
        "Finished runs are skipped, interrupted ones go on. Needs submitit: pip install -r requirements-sweep.txt",
        epilog="After -- come flags of main.py for all runs, then, for rows that differ in more than the value of a flag, "
        "--row NAME FLAGS... each. In --start_from, {seed} stands for the run's seed; a run that starts from another one of the "
        "sweep waits for it. Examples and Slurm: docs/sweeps.md.",
        allow_abbrev=False,
    )
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--name", help="the runs go to logs/NAME")
    place.add_argument("--folder", type=Path, metavar="DIR", help="the runs go to this folder")
    parser.add_argument("--seeds", required=True, metavar="1-3,7", help="seeds of each row")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FLAG=VALUE,...",
        help="a row for each value of this flag of main.py; given several times: for each combination; values that hold commas are "
        "parted by semicolons",
    )
    parser.add_argument("--start_from", metavar="RUN", help="main.py's flag, for all runs: 'logs/table1/mle-{seed}'")
    parser.add_argument("--jobs", type=whole(1), metavar="N", help="runs at a time (default: the cores, or all places on GPUs)")
    parser.add_argument(
        "--threads_per_run", type=whole(1, MAX_THREADS), metavar="N", help="CPU threads of a run (default: cores / runs at a time)"
    )
    parser.add_argument("--per_device", type=whole(1, 64), metavar="N", help="runs that share a GPU (default: 1)")
    parser.add_argument(
        "--cluster", choices=CLUSTERS, default="auto", help="auto: slurm where srun is installed; debug: one by one"
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of submitit's SlurmExecutor: partition=gpu time=600 (minutes) mem=8GB",
    )
    parser.add_argument("--python", default=sys.executable, metavar="COMMAND", help="the Python of the runs (default: this one)")
    parser.add_argument("--report", type=boolean, default=True, metavar="True|False", help="print the table (default: True)")
    parser.add_argument("--dry_run", action="store_true", help="only print the commands, and for Slurm the batch file")
    return parser


def sweep_folder(args: argparse.Namespace) -> Path:
    """Where the runs go; raises UserError."""
    if args.name is not None and (not args.name.strip() or args.name in (".", "..") or "/" in args.name):
        raise UserError(f"--name {args.name!r} is no name for a folder: give one name without a slash, or --folder")
    folder = args.folder or Path("logs", args.name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    return folder


def own_threads(args: argparse.Namespace, row: Row) -> int:
    """The number of threads that the user gives a row; 0: none is given."""
    given = row.given.get("threads", 0)
    if given and args.threads_per_run:
        raise UserError(f"--threads_per_run {args.threads_per_run} and --threads {given} say the same: choose one of them")
    return given or args.threads_per_run or 0


def local_slots(args: argparse.Namespace, rows: Sequence[Row], runs: int) -> list[Environment]:
    """The places for runs on this machine, each with what it changes in a run's environment; raises UserError."""
    devices = [] if all(row.given.get("device") == "cpu" for row in rows) else find_devices()
    if args.per_device and not devices:
        raise UserError(f"--per_device {args.per_device}: there is no CUDA device for the runs; --jobs says how many go at a time")
    places = (devices or [os.environ.get("CUDA_VISIBLE_DEVICES")]) * (args.per_device or 1)  # submitit would hide all devices
    if not devices:
        widest = max(own_threads(args, row) for row in rows)
        places *= args.jobs or max(1, count_cores() // (widest or 1))
    return [{"CUDA_VISIBLE_DEVICES": device} for device in places[: min(args.jobs or len(places), runs)]]


def threads_of(args: argparse.Namespace, row: Row, share: int) -> int:
    """The number of threads of a row's runs: as given, else a share of the cores, but not more than the preset has."""
    return own_threads(args, row) or min(share, row.preset_threads or share)


def show(tasks: Sequence[tuple[PlannedRun, Task]]) -> None:
    """Print the commands of a sweep."""
    for _, task in tasks:
        command = task.command()
        print(f"# {task.name} is finished" if command is None else shlex.join(command))


@contextlib.contextmanager
def only_sweep(folder: Path) -> Iterator[None]:
    """Inside, the folder is locked, which tells the runs that their sweep lives; raises UserError where another sweep has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        tries = 0
        while not take_lock(handle, fcntl.LOCK_EX):
            if (tries := tries + 1) == LOCK_TRIES:
                raise UserError(f"{folder.parent}: another sweep.py is at work on these runs")
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def print_table(rows: Sequence[Row], folder: Path) -> None:
    """Print report.py's table of all runs of these rows that have been evaluated."""
    runs = [f"{row.title.replace('=', ' ')}={run}" for row in rows for run in find_runs_of(row, folder)]
    if runs:
        print(flush=True)
        report.main(runs)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    parts = words.index("--") if "--" in words else len(words)
    args = build_parser().parse_args(words[:parts])
    folder = sweep_folder(args)
    start = [] if args.start_from is None else ["--start_from", args.start_from]
    rows = parse_rows(folder.resolve().name, args.set, [*start, *words[parts + 1 :]])
    runs = plan_runs(rows, parse_seeds(args.seeds), folder)
    cluster = choose_cluster(args.cluster)
    if cluster == "slurm":
        group, slots = args.per_device or 1, []
        parameters = slurm_parameters(args.slurm, folder.resolve().name, group)
        share = max(1, parameters.get("cpus_per_task", group) // group)
        parameters.setdefault("cpus_per_task", group * max(threads_of(args, row, share) for row in rows))
    else:
        slots = local_slots(args, rows, 1 if cluster == "debug" else len(runs))
        share = max(1, count_cores() // len(slots))
    tasks = [(run, make_task(run, folder / OUT, [args.python, str(MAIN)], threads_of(args, run.row, share))) for run in runs]
    if args.dry_run:
        show(tasks)
        if cluster == "slurm":
            jobs = math.ceil(sum(not run.finished for run in runs) / group)
            print(f"\n{batch_file(folder / OUT, parameters, jobs if args.jobs is None else min(jobs, args.jobs))}")
        return 0
    submitit = load_submitit()
    (folder / OUT).mkdir(parents=True, exist_ok=True)
    with only_sweep(folder / OUT):
        if cluster == "slurm":
            place = Slurm(submitit, folder / OUT, parameters, group, args.jobs)
        else:
            place = {"local": Local, "debug": Debug}[cluster](submitit, folder / OUT, slots)
        status = Sweep(tasks, place, say).run()
    if args.report and status != STOPPED:
        print_table(rows, folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
