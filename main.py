"""SeqGAN from the command line: pre-train, train adversarially, log, evaluate.

`python main.py` runs the synthetic experiment of the paper (Yu et al., AAAI 2017); `python main.py --help` lists every flag
with its symbol in the paper. This file puts the parts together; the flags are in options.py, the method itself is in train.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

# Threads that wait for each other spin first. With GNU OpenMP's own patience a training step takes 100 times as long as soon as
# another program has some of the cores; with this one 5 to 10 times, for a sixth more on free cores. Read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from data_loader import OracleData, TuneData, make_data
from oracle import save_oracle
from running import memory
from running.checkpoint import find_checkpoint, load_run, must_fit, write_json
from running.options import build_parser, check, resolve
from running.run_log import RunLog, describe_device, held, must_be_writable, prepare_folders, remove_run
from running.trainer import Trainer, final_evaluation
from support.errors import READER_GONE, UserError, exit_with_one_line
from support.threads import on_cpu
from train import TrainState, make_state

# Numbers below 1e-38 become 0. A CPU takes 100 times as long for a product of them, and a discriminator that is sure has gradients
# of that size: its steps would take up to twice as long, for digits that no weight can see. Threads take it over when they start.
torch.set_flush_denormal(True)


def choose_device(name: str) -> torch.device:
    """The device of a --device value, made the current one, with products in float32.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: this machine or this build of torch has no CUDA device")
        if (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
        torch.cuda.set_device(device)
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # cuDNN's own choice is TF32
    return device


@contextlib.contextmanager
def clean_stop(trainer: Trainer) -> Iterator[None]:
    """Inside, the first Ctrl-C (or SIGTERM) ends the run after the epoch under way, and the second one at once."""

    def at_once(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    def after_this_epoch(number: int, frame: object) -> None:
        if trainer.finished:  # all is saved
            at_once(number, frame)
        trainer.stop_requested = True
        trainer.log.line("stopping after this epoch (again: stop at once, losing what came after the last checkpoint)")
        for number in before:
            signal.signal(number, at_once)

    before = {number: signal.signal(number, after_this_epoch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(args: argparse.Namespace, checkpoint: dict[str, Any] | None, device: torch.device) -> int:
    """Run or go on with a training in folders that are ready; returns the exit status (130 where Ctrl-C ended it)."""
    log_dir, eval_log_dir = Path(args.log_dir), Path(args.eval_log_dir)
    print(memory.summary(args, torch.get_num_threads(), on_cpu(device)), flush=True)
    state = make_state(args, device)
    if checkpoint is None:
        data = first_data(args, state, device)
        if args.save_oracle is not None:
            save_oracle(data.oracle, Path(args.save_oracle))
        remove_run(log_dir, eval_log_dir)
        log = RunLog(log_dir, eval_log_dir)
        log.hyper_parameters(vars(args))
    else:
        with must_fit():
            data = make_data(args, device, checkpoint["data"])
            state.load_state_dict(checkpoint["state"])
        if args.save_oracle is not None:
            save_oracle(data.oracle, Path(args.save_oracle))
        moved = checkpoint["folders"]["log"] != str(log_dir.resolve())
        log = RunLog(log_dir, eval_log_dir, checkpoint["marks"], moved, next_step=state.step + 1)
        done = ", ".join(f"{number} epochs of {phase}" for phase, number in state.epochs_done.items())
        log.line(f"going on with {log_dir} after {done}")
    data.runner = state.runner
    log.line(data.summary())
    trainer = Trainer(state, data, args, log, checkpoint["last_evaluation"] if checkpoint else {})
    versions = {"python": platform.python_version(), "torch": torch.__version__, "device": describe_device(device)}
    write_json(log_dir / "config.json", {"args": vars(args), "versions": versions})
    log.line(f"on {versions['device']}; logs in {log_dir} and {eval_log_dir}")
    again = f"python main.py --resume --log_dir {shlex.quote(str(log_dir))}"
    try:
        with clean_stop(trainer):
            trainer.begin(new=checkpoint is None)
            trainer.run()
            if trainer.finished and args.evaluate:
                report(final_evaluation(state, data, args), log.line, log_dir / "final.json")
    except OSError as error:
        if error.filename is None:  # TensorBoard's writer does not say where
            error.filename = str(log_dir)
        raise
    except KeyboardInterrupt:
        log.line(f"stopped; go on from the last checkpoint with: {again}")
        return 130
    finally:
        log.close()
    if not trainer.finished:
        print(f"stopped; everything is saved. Go on with: {again}")
        return 130 if trainer.stop_requested else READER_GONE
    return 0


def first_data(args: argparse.Namespace, state: TrainState, device: torch.device) -> OracleData | TuneData:
    """The data of a new run; with --start_from they, and the state, are those of another run."""
    if args.start_from is None:
        return make_data(args, device)
    source = load_run(find_checkpoint(Path(args.start_from)))
    saved = source["state"]
    if not saved["counts"]["epochs_done"]["pretrain_d"]:  # D is as it was made: this run's may have other sizes
        own = state.state_dict()
        saved |= {name: own[name] for name in ("discriminator", "optimizer_discriminator")}
    with must_fit():
        state.load_state_dict(saved)
        return make_data(args, device, source["data"])


def report(values: dict[str, float], show: Callable[[str], None], path: Path | None = None) -> None:
    """Print the result of the evaluation at the end, and write it as JSON where a path is given."""
    show(f"after {values['step']} epochs of G, on {values['samples']} sequences:")
    for name, value in values.items():
        if name not in ("step", "samples") and not name.endswith("_error"):
            error = f" ± {values[f'{name}_error']:.4f}" if f"{name}_error" in values else ""
            show(f"  {name:<26} {value:.4f}{error}")
    if path is not None:
        write_json(path, values)


def evaluate_only(args: argparse.Namespace, checkpoint: dict[str, Any], device: torch.device) -> int:
    """Print the evaluation of a run's checkpoint; writes nothing."""
    state = make_state(args, device)
    with must_fit():
        data = make_data(args, device, checkpoint["data"])
        state.load_state_dict(checkpoint["state"])
    report(final_evaluation(state, data, args), print)
    return 0


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args, checkpoint = resolve(vars(build_parser().parse_args(argv)))
    check(args, checkpoint)
    device = choose_device(args.device)
    if args.is_train and args.d_precision == "tf32" and device.type != "cuda":
        raise UserError("--d_precision tf32: only CUDA devices have it")
    if args.threads:
        torch.set_num_threads(args.threads)
    if checkpoint is not None and not args.is_train:
        return evaluate_only(args, checkpoint, device)
    log_dir, eval_log_dir = Path(args.log_dir), Path(args.eval_log_dir)
    if checkpoint is None:
        prepare_folders(log_dir, eval_log_dir, args.overwrite)
    else:
        must_be_writable(log_dir, eval_log_dir)
    with held(log_dir):
        return train(args, checkpoint, device)


if __name__ == "__main__":
    sys.exit(main())
