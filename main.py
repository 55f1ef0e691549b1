"""SeqGAN from the command line: pre-train, train adversarially, log, evaluate.

`python main.py` runs the synthetic experiment of the paper (Yu et al., AAAI 2017); `python main.py --help` lists every flag
with its symbol in the paper. The method is in train.py, the flags are in running/flags.py.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import torch

from data_loader import make_data
from data_set import DataSet
from fast import native
from oracle import save_oracle
from running import memory
from running.adversarial_summary import adversarial_summary
from running.best import Best
from running.checkpoint import must_fit
from running.collapse import CollapseWatch
from running.flags import build_parser
from running.judging import judge_best
from running.run_folder import (
    BEGINNING,
    CONFIG,
    FINAL,
    FolderLocks,
    must_be_files,
    must_be_free,
    must_be_writable,
    no_empty_folder,
    remove_run,
)
from running.run_log import RunLog, SilentLog
from running.runs import read_evaluations
from running.settings import Launch, resolve, resume_command
from running.trainer import Trainer, final_evaluation
from support import world
from support.device import choose_device, describe_device
from support.errors import BROKEN_PIPE_STATUS, INTERRUPTED_STATUS, UserError, exit_with_one_line, must_have_output
from support.files import write_json, write_text
from support.threads import on_cpu, set_up
from support.torchrun import is_first
from train_state import TrainState, make_state


@contextlib.contextmanager
def clean_stop(trainer: Trainer) -> Iterator[None]:
    """Inside, the first Ctrl-C (or SIGTERM) ends the run after the current epoch, and the second one at once."""

    def at_once(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    def after_this_epoch(number: int, frame: object) -> None:
        if trainer.finished:  # everything is saved
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


def make(launch: Launch, state: TrainState, device: torch.device) -> DataSet:
    """The data of a run, and its state where it goes on or starts from another run's; raises UserError where they do not fit."""
    args = launch.args
    if launch.checkpoint is not None:
        return load(launch.checkpoint, launch, state, device)
    if launch.source is None:
        data = make_data(args, device, content=launch.content)
    else:
        saved = launch.source["state"]
        if not saved["counts"]["epochs_done"]["pretrain_d"]:  # D is untrained: this run's D may have other sizes
            own = state.state_dict()
            saved |= {name: own[name] for name in ("discriminator", "optimizer_discriminator")}
        with must_fit():
            state.load_state_dict(saved)
            data = make_data(args, device, launch.source["data"])
        data.reference = data.final_reference(args.eval_samples)  # measures of real sequences depend on their number
    for name in ("patience", "judges"):
        if getattr(args, name) and data.valid is None:
            raise UserError(f"--{name} {getattr(args, name)}: there are no validation sequences of {args.seq_len} tokens")
    return data


def load(checkpoint: dict[str, Any], launch: Launch, state: TrainState, device: torch.device) -> DataSet:
    """Load a run's state from its checkpoint, and return its data; raises UserError where it does not fit."""
    with must_fit():
        data = make_data(launch.args, device, checkpoint["data"])
        state.load_state_dict(checkpoint["state"])
    return data


def best_so_far(launch: Launch, state: TrainState, data: DataSet) -> Best:
    """The best evaluation of a run that goes on, or of the one that it starts from."""
    if launch.source is None:
        return Best() if launch.checkpoint is None else Best(**launch.checkpoint["best"])
    best = Best(**launch.source["best"])
    if not launch.args.evaluate:  # none will be compared with it; but a maximum likelihood that has ended stays so
        return Best(ended_early=best.ended_early)
    best.measure_again(state, data)
    return best


def begin_logs(trainer: Trainer, token: str | None, versions: dict[str, str]) -> None:
    """The logs of a run that has none yet.

    Args:
        trainer: the run.
        token: of the checkpoint that a process before this one has left; None where there was none.
        versions: for config.json.

    Raises:
        UserError: --eval_log_dir holds another run's events.
        OSError: a file can't be written.
    """
    log, args = trainer.log, trainer.args
    log_dir, eval_log_dir = log.folders["log"], log.folders["eval"]
    if token is None:
        token = secrets.token_hex(16)
        write_text(eval_log_dir / BEGINNING, token)
        # From here on --resume works. Until now an earlier run in these folders is as it was.
        trainer.save(begun=False, token=token)
    remove_run(log_dir, eval_log_dir, token)
    for name, text in trainer.data.texts().items():
        write_text(log_dir / name, text)
    log.open()
    log.hyper_parameters(vars(args))
    write_json(log_dir / CONFIG, {"args": vars(args), "versions": versions})


def go_on_with_logs(trainer: Trainer, checkpoint: dict[str, Any], versions: dict[str, str]) -> None:
    """The logs of a run that goes on, cut back to what its checkpoint knows; raises UserError and OSError."""
    log, state = trainer.log, trainer.state
    log_dir = log.folders["log"]
    moved = checkpoint["folders"]["log"] != str(log_dir.resolve())
    log.open(checkpoint["marks"], moved, next_step=state.g_epochs + 1)
    done = ", ".join(f"{number} epochs of {phase}" for phase, number in state.epochs_done.items())
    log.line(f"going on with {log_dir} after {done}")
    write_json(log_dir / CONFIG, {"args": vars(trainer.args), "versions": versions})


def train_together(trainer: Trainer, checkpoint: dict[str, Any], versions: dict[str, str]) -> None:
    """What all ranks of a run do, from its logs to the evaluation at the end; raises UserError and OSError.

    Args:
        trainer: the run.
        checkpoint: that it goes on from; empty for a new run.
        versions: for config.json.
    """
    log, folders = trainer.log, trainer.log.folders
    new = not checkpoint.get("begun", False)
    begins = torch.tensor([new, *trainer.state.epochs_done.values(), trainer.args.batch_size], dtype=torch.float64)
    world.must_be_alike([*begins.to(trainer.state.generator.device)], "all processes must see the same folder of the run")
    if is_first():  # all ranks have read their files, so that one may write some
        if new:
            begin_logs(trainer, checkpoint["token"] if checkpoint else None, versions)
        else:
            go_on_with_logs(trainer, checkpoint, versions)
    log.line(trainer.data.summary())
    place = f"logs in {folders['log']} and {folders['eval']}"
    log.line(f"on {versions['device']}; tokens are drawn by {versions['draws']}; {place}")
    with clean_stop(trainer):
        trainer.begin(new)
        if is_first():
            (folders["eval"] / BEGINNING).unlink(missing_ok=True)
        trainer.run()
        finish(trainer)


def train(launch: Launch, device: torch.device) -> int:
    """Train in folders that are ready; returns the exit status (130 where Ctrl-C ended it)."""
    args, log_dir, eval_log_dir = launch.args, Path(launch.args.log_dir), Path(launch.args.eval_log_dir)
    if is_first() and on_cpu(device):  # what a GPU needs is not computed
        print(memory.summary(args, torch.get_num_threads()), flush=True)
    state = make_state(args, device)
    data = make(launch, state, device)
    if args.save_oracle is not None and is_first():
        save_oracle(data.oracle, Path(args.save_oracle))
    data.runner = state.runner
    checkpoint = launch.checkpoint or {}
    watch = CollapseWatch(**checkpoint.get("watch", {}))
    best = best_so_far(launch, state, data)
    log = (RunLog if is_first() else SilentLog)(log_dir, eval_log_dir)
    trainer = Trainer(state, data, args, log, checkpoint.get("last_evaluation", {}), watch, best)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "device": describe_device(device)}
    versions["draws"] = native.choice().words
    again = resume_command(log_dir, eval_log_dir)
    try:
        with world.join(device, args.dist_timeout):
            train_together(trainer, checkpoint, versions)
        if trainer.finished and args.judges and is_first():
            with clean_stop(trainer):
                judge_best(log_dir, data, args, log.line)
    except OSError as error:
        if error.filename is None:  # TensorBoard's writer names no file
            error.filename = str(log_dir)
        raise
    except KeyboardInterrupt:
        log.line(f"stopped; go on from the last checkpoint with: {again}")
        return INTERRUPTED_STATUS
    finally:
        log.close()
    if not trainer.finished:
        if is_first():
            print(f"stopped; everything is saved. Go on with: {again}")
        return INTERRUPTED_STATUS if trainer.stop_requested else BROKEN_PIPE_STATUS
    return 0


def finish(trainer: Trainer) -> None:
    """What follows the last epoch: the evaluation at the end, and samples; raises UserError and OSError."""
    args, data, log = trainer.args, trainer.data, trainer.log
    log_dir = log.folders["log"]
    if not trainer.finished:
        return
    if args.evaluate:
        report(final_evaluation(trainer.state, data, args), log.line, log_dir / FINAL if is_first() else None)
        if trainer.best.models:
            log.line(trainer.best.summary())
        if is_first():
            with contextlib.suppress(UserError):  # a log that the user has changed is no reason to fail
                for line in adversarial_summary(read_evaluations(log_dir)):
                    log.line(line)
    if data.writes_samples:
        trainer.keep_final_samples()


def report(values: dict[str, float], show: Callable[[str], None], path: Path | None = None) -> None:
    """Print the result of the evaluation at the end, and write it as JSON where a path is given."""
    show(f"after {values['step']} epochs of G, on {values['samples']} sequences:")
    for name, value in values.items():
        if name not in ("step", "samples") and not name.endswith("_error"):
            error = f" ± {values[f'{name}_error']:.4f}" if f"{name}_error" in values else ""
            show(f"  {name:<26} {value:.4f}{error}")
    if path is not None:
        write_json(path, values)


def evaluate_only(launch: Launch, device: torch.device) -> int:
    """Print the evaluation of a run's checkpoint; writes nothing."""
    must_have_output()
    state = make_state(launch.args, device)
    data = load(launch.checkpoint, launch, state, device)
    report(final_evaluation(state, data, launch.args), print)
    return 0


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    given = vars(build_parser().parse_args(argv))
    with world.one_report(), FolderLocks() as locks:
        launch = resolve(given, locks.take if is_first() else lambda folder: None)
        args = launch.args
        device = choose_device(args.device)
        if args.is_train and args.d_precision == "tf32" and device.type != "cuda":
            raise UserError("--d_precision tf32: only CUDA devices have it")
        set_up(args.threads)
        native.set_up(args.native_draws, device)
        if not is_first():
            return train(launch, device) if args.is_train else 0
        if not args.is_train:
            return evaluate_only(launch, device)
        folders = (Path(args.log_dir), Path(args.eval_log_dir))
        replaces = launch.checkpoint is not None or args.overwrite
        if not replaces:
            must_be_free(*folders)  # before a folder is made
        new = must_be_writable(*folders)
        locks.take(*folders)
        with no_empty_folder(*new):
            must_be_files(*folders)
            if not replaces:
                must_be_free(*folders)  # again: another process may have begun and ended a run there before the lock
            return train(launch, device)


if __name__ == "__main__":
    sys.exit(main())
