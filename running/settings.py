"""From the flags that were given to all settings of a run: one function for each way to launch the program.

A new run takes what is not given from its preset; one that starts from another inherits data, G and D; one that is resumed or
evaluated takes everything from its checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data_loader import data_set_class
from data_sources import SOURCES, fixed_settings
from rewards import REWARDS, trains_discriminator
from running.checkpoint import find_checkpoint, load_run
from running.flags import BY_NAME, FLAGS, PAPER_FILTERS_32, filter_list, preset_settings
from running.memory import needed_bytes
from running.run_folder import LAST
from support.command_line import StartFrom
from support.errors import UserError
from support.torchrun import number_of_ranks
from train_state import policy_batch

LARGEST_MEMORY = 2**50  # bytes: more than any machine has; torch's own error fails past 2**63

Settings = dict[str, Any]


class Launch(NamedTuple):
    """What a command line asks for.

    Attributes:
        args: all settings.
        checkpoint: of the run that goes on or is evaluated; None for a new run.
        source: the checkpoint that a new run starts from, or None.
        content: what the data set has read from files to complete the settings.
    """

    args: argparse.Namespace
    checkpoint: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    content: Any = None


def resolve(given: Settings, lock: Callable[[Path], object] = lambda folder: None) -> Launch:
    """All settings, from the flags that were given.

    Args:
        given: those flags.
        lock: called with the folder of a run that is to go on, before its checkpoint is read.

    Raises:
        UserError: flags that do not go together, or a file that is missing, broken or of other sizes.
    """
    if given.get("resume") == "auto":
        given = {**given, "resume": _has_begun(given)}
    if not given.get("is_train", True):
        launch = evaluated(given)
    elif given.get("resume"):
        launch = resumed(given, lock)
    elif given.get("start_from") is not None:
        launch = started_from(given)
    else:
        launch = new_run(given)
    check(launch.args, launch.checkpoint)
    return launch


def new_run(given: Settings) -> Launch:
    """A run from the beginning: flags, then what files decide, then the preset."""
    settings = _with_preset(given)
    _check_requirements(settings, given)
    files = data_set_class(settings["dataset"]).read_files(settings, given)
    return Launch(_with_folders({**settings, **files.settings}), content=files.content)


def started_from(given: Settings) -> Launch:
    """A run that begins where the pre-training of another one ended."""
    path = find_checkpoint(Path(given["start_from"]))
    source = load_run(path)
    settings = _with_preset({**inherited(given, source), **given})
    _check_requirements(settings, given)
    done, ended_early = source["state"]["counts"]["epochs_done"], source["best"]["ended_early"]
    if given.get("patience") and done["pretrain_g"] >= settings["pretrain_g_epochs"]:
        raise UserError(f"--patience {given['patience']}: the maximum likelihood of --start_from {given['start_from']} is complete")
    args = _with_folders(settings)
    _check_epochs(args, done, ended_early, "the run of --start_from")
    folders = {Path(folder).resolve() for folder in (args.log_dir, args.eval_log_dir)}
    others = {path.resolve().parent, *map(Path, source["folders"].values())}
    if any(folder.exists() for folder in folders & others):  # a folder that was moved away since is free again
        raise UserError(f"--start_from {given['start_from']}: the new run would replace that one; name another folder")
    return Launch(args, source=source)


def resumed(given: Settings, lock: Callable[[Path], object]) -> Launch:
    """A run that goes on: its own settings, but for those that a resumed run may change."""
    path = _existing_run(given, "resume")
    lock(path.parent)
    log_dir, checkpoint = str(path.parent), load_run(path)
    settings = _saved_settings(given, checkpoint, log_dir)
    if "eval_log_dir" not in given:
        _check_own_folders(path.parent, checkpoint["folders"])
    _check_requirements(settings, {name: value for name, value in given.items() if BY_NAME[name].resumable})
    return Launch(_with_folders({**settings, "resume": True, "is_train": True, "overwrite": False}), checkpoint)


def evaluated(given: Settings) -> Launch:
    """A run whose checkpoint is evaluated."""
    if given.get("start_from") is not None and not given.get("resume"):
        raise UserError("--start_from begins a training, --is_train False evaluates one: choose one of them")
    if given.get("judges"):
        raise UserError("--judges belongs to a training: for a finished run there is python judges.py RUN")
    if given.get("save_oracle") is not None:
        raise UserError("--save_oracle belongs to a training: --is_train False writes nothing; give it with --resume")
    path = _existing_run(given, "evaluate")
    checkpoint = load_run(path)
    settings = _saved_settings(given, checkpoint, str(path.parent))
    once = {"evaluate": given.get("evaluate", True), "resume": given.get("resume", False), "is_train": False, "overwrite": False}
    return Launch(_with_folders({**settings, **once}), checkpoint)


def inherited(given: Settings, source: dict[str, Any]) -> Settings:
    """What a run that starts from another's checkpoint takes over from it.

    Raises:
        UserError: a flag contradicts the source, or the source has adversarial epochs behind it.
    """
    path, saved, done = given["start_from"], source["args"], source["state"]["counts"]["epochs_done"]
    if done["adversarial"]:
        raise UserError(
            f"--start_from {path}: that run has made {done['adversarial']} adversarial epochs already; it must have none"
        )
    kinds = {StartFrom.FIXED, StartFrom.FIXED_WITH_D} if done["pretrain_d"] else {StartFrom.FIXED}
    for name in sorted(flag.name for flag in FLAGS if flag.start_from in kinds and flag.name in given):
        if given[name] != saved[name]:
            raise UserError(f"--{name} {given[name]} does not fit --start_from {path}, which has {saved[name]}")
    return {flag.name: saved[flag.name] for flag in FLAGS if flag.start_from is not StartFrom.OWN}


def _with_preset(given: Settings) -> Settings:
    dataset = given.get("dataset", "LSTM")
    preset = preset_settings(given.get("preset", "default"))
    own = {**SOURCES[dataset].settings, **SOURCES[dataset].presets.get(preset["preset"], {})}
    settings = {**preset, **own, **fixed_settings(dataset), **given}
    if given.get("batch_per_rank") is not None:
        if "batch_size" in given:
            raise UserError("--batch_size is that of all processes together, --batch_per_rank that of each: choose one of them")
        settings["batch_size"] = settings["batch_per_rank"] * number_of_ranks()
    if "d_filters" not in given:
        settings["d_filters"] = fitting_filters(settings["preset"], settings["d_filters"], settings["seq_len"])
    return settings


def fitting_filters(preset: str, filters: list[list[int]], seq_len: int) -> list[list[int]]:
    """A preset's filters for sequences of T tokens.

    At T = 32 `paper` has the authors' own for that length. Otherwise those of the preset that are not wider than T are left.
    """
    if preset == "paper" and seq_len == 32:
        return filter_list(PAPER_FILTERS_32)
    return [[width, number] for width, number in filters if width <= seq_len] or filters


def _with_folders(settings: Settings) -> argparse.Namespace:
    log_dir, eval_log_dir = log_folders(settings)
    return argparse.Namespace(**{**settings, "log_dir": log_dir, "eval_log_dir": eval_log_dir})


def log_folders(settings: Settings) -> tuple[str, str]:
    """The training and evaluation folders that the settings mean; raises UserError for a name that is no folder's."""
    name = settings["run_name"]
    if name is not None and (not name.strip() or name in (".", "..") or "/" in name):
        raise UserError(f"--run_name {name!r} is no name for a folder: give one name without a slash")
    if "" in (settings["log_dir"], settings["eval_log_dir"]):
        raise UserError("--log_dir and --eval_log_dir can't be empty")
    if name is None and settings["log_dir"] is not None:
        name = Path(settings["log_dir"]).resolve().name
    if name is None:
        name = f"{settings['dataset']}-{settings['preset']}-seed{settings['seed']}-{time.strftime('%Y%m%d-%H%M%S')}"
    return settings["log_dir"] or f"logs/train/{name}", settings["eval_log_dir"] or f"logs/eval/{name}"


def _check_own_folders(log_dir: Path, saved: dict[str, str]) -> None:
    """Refuse to write where only the checkpoint says so: it may be a stranger's.

    Its evaluation folder is taken where it lies beside or in the run's, as by default and in this program's experiments.
    """
    if saved["log"] != str(log_dir.resolve()):
        raise UserError(f"{log_dir} was copied or moved from {saved['log']}: give --eval_log_dir DIR for its evaluations")
    if not has_its_usual_place(Path(saved["eval"]), log_dir):
        raise UserError(f"{log_dir} wrote its evaluations to {saved['eval']}: give --eval_log_dir DIR, that folder or another")


def has_its_usual_place(eval_log_dir: Path, log_dir: Path) -> bool:
    """Whether a folder of evaluations, without links, lies beside or in that of its run."""
    here = log_dir.resolve()
    beside = (here.parent / "eval", here.parent / "eval" / here.name, here.parent.parent / "eval" / here.name)
    inside = ".." not in eval_log_dir.parts and eval_log_dir.is_relative_to(here)
    return inside or eval_log_dir in [folder.resolve() for folder in beside]


def resume_command(log_dir: Path, eval_log_dir: Path) -> str:
    """The command that goes on with a run."""
    command = f"python main.py --resume --log_dir {shlex.quote(str(log_dir))}"
    if has_its_usual_place(eval_log_dir.resolve(), log_dir):
        return command
    return f"{command} --eval_log_dir {shlex.quote(str(eval_log_dir))}"


def _existing_run(given: Settings, verb: str) -> Path:
    """The checkpoint of the run that is meant."""
    path = _checkpoint_of(given)
    if not path.is_file():
        raise UserError(f"nothing to {verb}: no {LAST} in {path.parent}")
    return path


def _has_begun(given: Settings) -> bool:
    """Whether the run of --resume auto has a checkpoint."""
    return _checkpoint_of(given).is_file()


def _checkpoint_of(given: Settings) -> Path:
    """Where the checkpoint of the run is that is meant."""
    if given.get("overwrite"):
        raise UserError("--overwrite starts a run anew, --resume and --is_train False go on from one: choose one of them")
    if given.get("log_dir") is None and given.get("run_name") is None:
        raise UserError("which run? --resume and --is_train False need --log_dir or --run_name")
    log_dir, _ = log_folders({**preset_settings("default"), **given})
    return Path(log_dir) / LAST


def _saved_settings(given: Settings, checkpoint: dict[str, Any], log_dir: str) -> Settings:
    """A run's own settings, changed as the flags say."""
    saved = checkpoint["args"]
    for name, value in given.items():
        if not BY_NAME[name].resumable and value != saved[name]:
            raise UserError(f"--{name} {value} does not fit the run in {log_dir}, which has {saved[name]}")
    places = {"log_dir": log_dir, "eval_log_dir": given.get("eval_log_dir", checkpoint["folders"]["eval"])}
    places["save_oracle"] = given.get("save_oracle")  # a checkpoint may be a stranger's: it names no file to write
    return {**saved, **given, **places, "preset": saved["preset"]}


def _check_requirements(settings: Settings, given: Settings) -> None:
    """Refuse flags that have no effect with these settings."""
    for name in given:
        if given[name] is not None and (requires := BY_NAME[name].requires) is not None:
            other, values = requires
            if settings[other] not in values:
                raise UserError(f"--{name} has no effect without --{other} {' or '.join(values)}: --{other} is {settings[other]}")


def check(args: argparse.Namespace, checkpoint: dict[str, Any] | None) -> None:
    """Refuse combinations that can't work, before anything is written; raises UserError."""
    ranks = number_of_ranks()
    for name, size in (("batch_size", args.batch_size), ("policy_batch", policy_batch(args))):
        if size < ranks:
            raise UserError(f"--{name} {size}: fewer sequences than the {ranks} processes that share them")
    _check_folders(args)
    _check_sizes(args)
    for name, (value, reason) in SOURCES[args.dataset].fixed.items():
        if getattr(args, name) != value:
            raise UserError(f"--{name} {getattr(args, name)}: {reason}")
    _check_recipe(args)
    if not args.is_train and not args.evaluate:
        raise UserError("--is_train False --evaluate False leaves nothing to do")
    if trains_discriminator(args) and not args.d_steps and not args.pretrain_d_epochs:
        raise UserError("--d_steps 0 --pretrain_d_epochs 0 would give rewards from a discriminator that was never trained")
    if checkpoint is not None and args.is_train:
        ended_early = checkpoint["best"]["ended_early"]
        _check_epochs(args, checkpoint["state"]["counts"]["epochs_done"], ended_early)
        _check_added_epochs(args, checkpoint)


def _check_added_epochs(args: argparse.Namespace, checkpoint: dict[str, Any]) -> None:
    """Refuse more epochs of a maximum likelihood that --patience has ended, or in which G has gone back to an earlier epoch."""
    saved, done, best = checkpoint["args"], checkpoint["state"]["counts"]["epochs_done"]["pretrain_g"], checkpoint["best"]
    if args.pretrain_g_epochs == saved["pretrain_g_epochs"]:
        return
    given = f"--pretrain_g_epochs {args.pretrain_g_epochs}"
    if best["ended_early"]:
        raise UserError(f"{given}: --patience has ended this run's maximum likelihood already")
    where = best["where"].get("step", done)
    if saved["patience"] and done == saved["pretrain_g_epochs"] and where < done:
        raise UserError(f"{given}: G has its weights of epoch {where} again (--patience), its optimiser has not; start a new run")


def _check_recipe(args: argparse.Namespace) -> None:
    """Refuse rewards and baselines that need what these settings do not have."""
    if args.patience and not args.evaluate:
        raise UserError("--patience needs evaluations: give --patience 0, or leave --evaluate True")
    if not args.total_epochs or args.mle_share == 1:  # no policy gradient
        return
    if policy_batch(args) == 1 and (args.reward == "shuffled" or args.baseline != "none"):
        what = "--reward shuffled" if args.reward == "shuffled" else f"--baseline {args.baseline}"
        flag = "batch_size" if args.policy_batch is None else "policy_batch"
        raise UserError(f"{what} needs other sequences in the batch: --{flag} is 1")
    if args.reward == "constant" and args.baseline != "none":  # not even with --kl_weight: the divergence begins at its minimum, 0
        raise UserError(f"--reward constant with --baseline {args.baseline} leaves nothing: all values are 0; --baseline none")
    if args.baseline == "state" and REWARDS[args.reward].rolls_out and not args.rollout_num:
        raise UserError("--baseline state needs the values of roll-outs: --rollout_num is 0 (--baseline leave_one_out needs none)")


def _check_folders(args: argparse.Namespace) -> None:
    for name in ("log_dir", "eval_log_dir"):
        folder = Path(getattr(args, name))
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--{name} {folder} is no folder")
        try:
            str(folder.resolve()).encode()  # as the checkpoint will keep it; the parser has refused flags that are not UTF-8
        except UnicodeEncodeError:
            raise UserError(f"--{name}: the folder {str(folder.resolve())!r} is not UTF-8 text") from None
    if args.save_oracle is not None and not Path(args.save_oracle).absolute().parent.is_dir():
        raise UserError(f"--save_oracle {args.save_oracle}: there is no folder {Path(args.save_oracle).parent}")


def _check_sizes(args: argparse.Namespace) -> None:
    widest = max(width for width, _ in args.d_filters)
    if widest > args.seq_len:
        raise UserError(f"--d_filters: a filter of width {widest} does not fit sequences of --seq_len {args.seq_len}")
    if (needed := sum(needed_bytes(args, 1).values())) > LARGEST_MEMORY:
        raise UserError(f"out of memory: these sizes need about {needed / 2**40:.0f} TiB")
    if 0 < args.train_size < args.batch_size:
        raise UserError(f"--train_size {args.train_size} does not fill one batch of --batch_size {args.batch_size}")


def _check_epochs(args: argparse.Namespace, done: dict[str, int], ended_early: bool, whose: str = "this run") -> None:
    """Refuse to go on with fewer epochs than a phase has made, or with more after a later phase has begun."""
    for phase, later, flag in (
        ("pretrain_g", done["pretrain_d"] + done["adversarial"], "pretrain_g_epochs"),
        ("pretrain_d", done["adversarial"], "pretrain_d_epochs"),
        ("adversarial", 0, "total_epochs"),
    ):
        if done[phase] > getattr(args, flag):
            raise UserError(f"--{flag} {getattr(args, flag)}: {whose} has made {done[phase]} epochs of that phase already")
        wanted = getattr(args, flag) if phase == "pretrain_g" or trains_discriminator(args) else 0
        if later and done[phase] < wanted and not (phase == "pretrain_g" and ended_early):
            raise UserError(
                f"--{flag} {getattr(args, flag)}: {whose} finished that phase after {done[phase]} epochs, a later one has begun"
            )
