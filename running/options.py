"""The flags of the command line, each declared once with its value in every preset, and how they become a run's settings."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from discriminator import PRECISIONS
from music import GRIDS, VOCAB_SIZE
from oracle import ORACLE_INIT, load_oracle
from rewards import REWARDS
from running.checkpoint import LAST, find_checkpoint, load_run
from running.memory import needed_bytes
from support.errors import UserError
from train import GENERATOR_INIT, needs_discriminator

# Settings that a data set changes in every preset.
DATASETS = {
    "LSTM": {},
    "Nottingham": {"vocab_size": VOCAB_SIZE, "seq_len": 32},
}
PRESETS = ("default", "paper", "smoke")
MAX_THREADS = 1024
LARGEST = 2**31 - 1  # of sizes and counts
LARGEST_SEED = 2**63 - 1
LARGEST_MEMORY = 2**50  # bytes that no machine has; past 2**63 torch can't even say that it lacks them
FILTERS = "3x50,5x80,5x80,5x100"
PAPER_FILTERS = "1x100,2x200,3x200,4x200,5x200,6x100,7x100,8x100,9x100,10x100,15x160,20x160"
PAPER_FILTERS_32 = PAPER_FILTERS.replace("15x160,20x160", "16x160,24x160,32x160")  # for T = 32


def whole(minimum: int, maximum: int = LARGEST) -> Callable[[str], int]:
    """An argparse type: a whole number from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        if value > maximum:
            raise argparse.ArgumentTypeError(f"must be at most {maximum}, not {text if len(text) < 30 else f'{text[:20]}...'}")
        return value

    return parse


def real(low: float, high: float = math.inf, low_open: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number from low to high; `low_open` leaves low itself out."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value) or not low <= value <= high or (low_open and value == low):
            bounds = f"above {low:g}" if low_open else f"at least {low:g}"
            raise argparse.ArgumentTypeError(f"must be {bounds}{f' and at most {high:g}' if high < math.inf else ''}, not {text}")
        return value

    return parse


def boolean(text: str) -> bool:
    """An argparse type: True or False in words or as 1 and 0."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def filter_list(text: str) -> list[list[int]]:
    """An argparse type: `3x50,5x80` -> [[3, 50], [5, 80]], filters of (width, number)."""
    try:
        filters = [[int(part) for part in item.split("x")] for item in text.split(",")]
    except ValueError:
        filters = []
    if not filters or any(len(item) != 2 or min(item) < 1 for item in filters):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of WIDTHxNUMBER such as {FILTERS}")
    if max(map(max, filters)) > LARGEST:
        raise argparse.ArgumentTypeError(f"widths and numbers must be at most {LARGEST}")
    return filters


class Flag(NamedTuple):
    """One setting: where it stands, its value in each preset, and what it means. The only place that names it."""

    group: str
    name: str
    parse: Callable[[str], Any] | tuple[str, ...]  # a parser, or the choices
    default: Any
    paper: Any
    help: str


RUN, DATA, G, D, ADVERSARIAL, EVALUATION = (
    "the run",
    "data",
    "generator G",
    "discriminator D",
    "adversarial training (Algorithm 1)",
    "evaluation and output",
)
FLAGS = (
    Flag(
        RUN,
        "preset",
        PRESETS,
        "default",
        "paper",
        "the settings to start from; every other flag overrides one of them. smoke: paper's schedule at tiny sizes, which shows in "
        "seconds that everything works, and nothing else",
    ),
    Flag(RUN, "seed", whole(0, LARGEST_SEED), 1, 1, "seed of every random stream"),
    Flag(RUN, "device", str, "auto", "auto", "auto, cpu, cuda or cuda:N; auto takes CUDA where there is one"),
    Flag(RUN, "threads", whole(0, MAX_THREADS), 0, 0, "CPU threads; 0 leaves the choice to torch"),
    Flag(RUN, "cuda_graphs", boolean, True, True, "on CUDA, record the steps of fixed shapes and play them back"),
    Flag(
        RUN,
        "profile",
        boolean,
        False,
        False,
        "record one of the first epochs of each phase: traces for Perfetto in LOG_DIR/profile",
    ),
    Flag(RUN, "is_train", boolean, True, True, "train; False evaluates the run's checkpoint instead"),
    Flag(RUN, "resume", boolean, False, False, "go on with the run in --log_dir (or --run_name), with its settings"),
    Flag(
        RUN,
        "start_from",
        str,
        None,
        None,
        "begin a new run where the pre-training of another one (folder or checkpoint) ended, with its seed, preset, data, G and D",
    ),
    Flag(RUN, "overwrite", boolean, False, False, "replace a run that is in the log folders"),
    Flag(
        DATA, "dataset", tuple(DATASETS), "LSTM", "LSTM", "where the tokens come from: the oracle LSTM, or MIDI files (Nottingham)"
    ),
    Flag(DATA, "data_dir", str, "data/Nottingham", "data/Nottingham", "folder or zip of MIDI files, for --dataset Nottingham"),
    Flag(DATA, "grid", GRIDS, "seconds", "seconds", "frames of MIDI: --frame_seconds long, or an eighth note"),
    Flag(DATA, "frame_seconds", real(0.02), 0.4, 0.4, "length of a frame on the grid of seconds"),
    Flag(DATA, "vocab_size", whole(1), 5000, 5000, "V, number of tokens (Nottingham: 89)"),
    Flag(DATA, "seq_len", whole(1), 20, 20, "T, tokens in a sequence (Nottingham: 32)"),
    Flag(DATA, "batch_size", whole(1), 32, 64, "B, sequences in a batch, of G and of D"),
    Flag(DATA, "train_size", whole(0), 0, 10_000, "training sequences, fixed; 0 draws each batch fresh and makes a batch an epoch"),
    Flag(
        DATA,
        "shuffle",
        boolean,
        True,
        False,
        "a new order for each pass over the training set; False: G's batches stay as they are, D's for the passes of one round",
    ),
    Flag(DATA, "oracle_seed", whole(0, LARGEST_SEED), None, None, "seed of the oracle's weights (default: --seed)"),
    Flag(DATA, "oracle_emb_dim", whole(1), 20, 32, "the oracle's embedding size"),
    Flag(DATA, "oracle_hidden_dim", whole(1), 50, 32, "the oracle's hidden units"),
    Flag(DATA, "oracle_init", tuple(ORACLE_INIT), "glorot", "normal", "the oracle's LSTM weights: Glorot uniform, or all N(0, 1)"),
    Flag(DATA, "oracle_params", str, None, None, "the oracle from a file: .npz or the authors' pickle; its sizes are the file's"),
    Flag(DATA, "save_oracle", str, None, None, "write the oracle to this .npz file, for --oracle_params"),
    Flag(G, "g_emb_dim", whole(1), 32, 32, "E, G's embedding size"),
    Flag(G, "g_hidden_dim", whole(1), 50, 32, "H, G's hidden units"),
    Flag(G, "g_init", tuple(GENERATOR_INIT), "glorot", "normal", "G's weights: Glorot uniform LSTM, or all N(0, 0.1²)"),
    Flag(G, "g_lr", real(0, low_open=True), 0.01, 0.01, "Adam's learning rate, in both phases of G"),
    Flag(G, "grad_clip", real(0, low_open=True), 5.0, 5.0, "largest gradient norm of G"),
    Flag(G, "pretrain_g_epochs", whole(0), 1000, 120, "epochs of maximum likelihood (a batch or a pass each: --train_size)"),
    Flag(
        G, "scheduled_sampling", real(0, 1), 0.0, 0.0, "how much ω falls an epoch of scheduled sampling (the paper: 0.002); 0: MLE"
    ),
    Flag(D, "d_emb_dim", whole(1), 32, 64, "D's embedding size"),
    Flag(
        D,
        "d_filters",
        filter_list,
        FILTERS,
        PAPER_FILTERS,
        "convolutions, WIDTHxNUMBER,... (paper, T = 32: 16, 24, 32 instead of 15, 20)",
    ),
    Flag(D, "d_keep_prob", real(0, 1, low_open=True), 0.75, 0.75, "share of D's features that dropout keeps in training"),
    Flag(D, "d_l2", real(0), 0.0, 0.2, "weight of (‖W‖² + ‖b‖²)/2 of D's output layer"),
    Flag(D, "d_lr", real(0, low_open=True), 1e-4, 1e-4, "Adam's learning rate for D"),
    Flag(
        D,
        "d_precision",
        PRECISIONS,
        "float32",
        "float32",
        "what the products of D's training round their factors to: tf32 needs CUDA; rewards are always computed in float32",
    ),
    Flag(D, "pretrain_d_epochs", whole(0), 50, 50, "rounds of D's pre-training, each with fresh negatives and k passes"),
    Flag(D, "d_epochs", whole(1), 3, 3, "k, passes over the negatives of a round (batches, where data are drawn fresh)"),
    Flag(ADVERSARIAL, "total_epochs", whole(0), 1000, 200, "adversarial epochs, after the pre-training"),
    Flag(ADVERSARIAL, "g_steps", whole(1), 1, 1, "g-steps, policy-gradient updates an epoch"),
    Flag(ADVERSARIAL, "d_steps", whole(0), 5, 5, "d-steps, rounds of D's training an epoch"),
    Flag(ADVERSARIAL, "reward", REWARDS, "discriminator", "discriminator", "bleu is PG-BLEU; constant and random are controls"),
    Flag(ADVERSARIAL, "reward_constant", real(0, 1e6, low_open=True), 0.5, 0.5, "the reward of --reward constant"),
    Flag(ADVERSARIAL, "rollout_num", whole(1), 16, 16, "N, roll-outs of each prefix (Eq. 4)"),
    Flag(ADVERSARIAL, "rollout_update_rate", real(0, 1), 0.0, 0.0, "weight that the roll-out policy β keeps each epoch; 0: β ← θ"),
    Flag(ADVERSARIAL, "policy_loss", ("mean", "sum"), "mean", "sum", "the policy loss over the B·T tokens (Eq. 8)"),
    Flag(EVALUATION, "evaluate", boolean, True, True, "evaluate while training"),
    Flag(EVALUATION, "eval_every", whole(1), 10, 5, "epochs of G from one evaluation to the next"),
    Flag(EVALUATION, "eval_samples", whole(1), 1000, 10_000, "sequences generated, and sequences held out, for an evaluation"),
    Flag(EVALUATION, "final_eval_samples", whole(1), 10_000, 100_000, "the same for the evaluation at the end"),
    Flag(EVALUATION, "save_every", whole(1), 100, 5, "epochs from one checkpoint to the next"),
    Flag(EVALUATION, "sample_every", whole(1), 100, 100, "epochs of G from one set of songs to the next (Nottingham)"),
    Flag(EVALUATION, "log_generation", boolean, False, False, "log generated sequences as images, a pixel a token"),
    Flag(EVALUATION, "run_name", str, None, None, "name of the default log folders (default: data set, preset, seed and time)"),
    Flag(EVALUATION, "log_dir", str, None, None, "the run's folder (default: logs/train/RUN_NAME)"),
    Flag(EVALUATION, "eval_log_dir", str, None, None, "TensorBoard folder of the evaluations (default: logs/eval/RUN_NAME)"),
)
# What --preset smoke changes in paper's settings: all phases in seconds. One thread, because tiny sizes gain nothing from more.
SMOKE = {
    **{"preset": "smoke", "threads": 1},
    **{"vocab_size": 50, "seq_len": 8, "batch_size": 16, "train_size": 128, "oracle_emb_dim": 8, "oracle_hidden_dim": 8},
    **{"g_emb_dim": 8, "g_hidden_dim": 8, "pretrain_g_epochs": 10},
    **{"d_emb_dim": 8, "d_filters": "1x8,2x8,4x8", "pretrain_d_epochs": 3, "total_epochs": 5, "rollout_num": 4},
    **{"eval_every": 2, "eval_samples": 200, "final_eval_samples": 500, "sample_every": 5},
}
# What a resumed run may change; everything else would make it another run.
RESUMABLE = {
    *(
        "device",
        "threads",
        "cuda_graphs",
        "d_precision",
        "profile",
        "is_train",
        "resume",
        "evaluate",
        "eval_every",
        "final_eval_samples",
        "save_every",
        "sample_every",
        "log_generation",
        "save_oracle",
        "data_dir",  # the data may have moved; that they are the same is checked when they are read
    ),
    *("pretrain_g_epochs", "pretrain_d_epochs", "total_epochs", "run_name", "log_dir", "eval_log_dir"),
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line, without the page of usage."""

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with status 2."""
        print(f"error: {message} (see --help)", file=sys.stderr)
        sys.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags that are not given are absent from its result, so that presets and checkpoints can fill them."""
    parser = Parser(
        description="SeqGAN: pre-train an LSTM generator and a CNN discriminator, then train them adversarially.",
        epilog="Defaults are those of --preset default; [paper: ..., smoke: ...] are the values of --preset paper where it differs "
        "from default, and of --preset smoke where it differs from paper.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for flag in FLAGS:
        group = groups.setdefault(flag.group, parser.add_argument_group(flag.group))
        text = flag.help.replace("%", "%%")
        if flag.default is not None:
            text += f" (default: {flag.default})"
        other = [f"paper: {flag.paper}"] if flag.paper != flag.default else []
        other += [f"smoke: {SMOKE[flag.name]}"] if flag.name in SMOKE else []
        if other and flag.name != "preset":
            text += f" [{', '.join(other)}]"
        if isinstance(flag.parse, tuple):
            group.add_argument(f"--{flag.name}", choices=flag.parse, help=text)
        elif flag.parse is boolean:
            group.add_argument(f"--{flag.name}", type=boolean, nargs="?", const=True, metavar="True|False", help=text)
        else:
            group.add_argument(f"--{flag.name}", type=flag.parse, metavar=flag.name.upper(), help=text)
    return parser


def preset_settings(preset: str) -> dict[str, Any]:
    """Every setting of a preset."""
    values = {flag.name: flag.default if preset == "default" else flag.paper for flag in FLAGS}
    if preset == "smoke":
        values |= SMOKE
    return {**values, "d_filters": filter_list(values["d_filters"])}


def log_folders(settings: dict[str, Any]) -> tuple[str, str]:
    """The training and evaluation folders that the settings mean."""
    name = settings["run_name"]
    if name is not None and (not name.strip() or name in (".", "..") or "/" in name):
        raise UserError(f"--run_name {name!r} is no name for a folder")
    if "" in (settings["log_dir"], settings["eval_log_dir"]):
        raise UserError("--log_dir and --eval_log_dir can't be empty")
    if name is None and settings["log_dir"] is not None:
        name = Path(settings["log_dir"]).resolve().name
    if name is None:
        name = f"{settings['dataset']}-{settings['preset']}-seed{settings['seed']}-{time.strftime('%Y%m%d-%H%M%S')}"
    return settings["log_dir"] or f"logs/train/{name}", settings["eval_log_dir"] or f"logs/eval/{name}"


def resolve(given: dict[str, Any]) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """All settings, from the flags that were given, the checkpoint of a run that goes on, and the preset.

    Returns:
        The settings, and the checkpoint of the run that they go on with or evaluate (None for a new run).

    Raises:
        UserError: flags that do not go together, or a checkpoint that is missing, broken or of other sizes.
    """
    source = None
    if given.get("start_from") is not None and not given.get("resume"):
        source_path = find_checkpoint(Path(given["start_from"]))
        source = load_run(source_path)
        given = {**inherited(given, source), **given}
    settings = {**preset_settings(given.get("preset", "default")), **DATASETS[given.get("dataset", "LSTM")], **given}
    if "reward_constant" in given and settings["reward"] != "constant" and settings["is_train"] and not settings["resume"]:
        raise UserError(f"--reward_constant: --reward is {settings['reward']}")
    if settings["preset"] == "paper" and settings["seq_len"] == 32 and "d_filters" not in given:
        settings["d_filters"] = filter_list(PAPER_FILTERS_32)
    checkpoint = None
    if settings["resume"] or not settings["is_train"]:
        if settings["overwrite"]:
            raise UserError("--overwrite starts a run anew, --resume and --is_train False go on from one: choose one of them")
        if settings["log_dir"] is None and settings["run_name"] is None:
            raise UserError("which run? --resume and --is_train False need --log_dir or --run_name")
        settings["log_dir"], _ = log_folders(settings)
        path = Path(settings["log_dir"]) / LAST
        if not path.is_file():
            raise UserError(f"nothing to {'resume' if settings['is_train'] else 'evaluate'}: no {LAST} in {settings['log_dir']}")
        checkpoint = load_run(path)
        saved = checkpoint["args"]
        for name, value in given.items():
            if name not in RESUMABLE and value != saved.get(name):
                raise UserError(f"--{name} {value} does not fit the run in {settings['log_dir']}, which has {saved.get(name)}")
        once = {"resume": settings["resume"], "is_train": settings["is_train"], "overwrite": False}
        if not settings["is_train"]:
            once["evaluate"] = given.get("evaluate", True)
        if "eval_log_dir" not in given:
            if checkpoint["folders"]["log"] != str(Path(settings["log_dir"]).resolve()) and settings["is_train"]:
                where = checkpoint["folders"]["log"]
                raise UserError(
                    f"{settings['log_dir']} was copied or moved from {where}: say --eval_log_dir, where its evaluations go"
                )
            once["eval_log_dir"] = checkpoint["folders"]["eval"]
        settings = {**settings, **saved, **given, **once, "log_dir": settings["log_dir"], "preset": saved["preset"]}
    elif settings["oracle_params"] is not None and source is None:
        settings |= oracle_sizes(settings["oracle_params"], given)
    settings["log_dir"], settings["eval_log_dir"] = log_folders(settings)
    if source is not None:
        folders = {Path(settings[name]).resolve() for name in ("log_dir", "eval_log_dir")}
        others = {source_path.resolve().parent, *map(Path, source["folders"].values())}
        if any(folder.exists() for folder in folders & others):  # a folder that was moved away since is free again
            raise UserError(f"--start_from {given['start_from']}: the new run would replace that one; name another folder")
    return argparse.Namespace(**settings), checkpoint


def inherited(given: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """What a run that starts from another's checkpoint takes over: data, G, D, seed and preset.

    Raises:
        UserError: a flag contradicts the source, or the source has adversarial epochs behind it.
    """
    path, saved, done = given["start_from"], source["args"], source["state"]["counts"]["epochs_done"]
    if done["adversarial"]:
        raise UserError(f"--start_from {path}: that run has made {done['adversarial']} adversarial epochs already")
    if given.get("is_train") is False:
        raise UserError("--start_from begins a training, --is_train False evaluates one: choose one of them")
    fixed = {"seed", "preset", *(flag.name for flag in FLAGS if flag.group in (DATA, G))} - {"data_dir", "save_oracle"}
    if done["pretrain_d"]:
        fixed |= {"d_emb_dim", "d_filters"}
    for name in sorted(fixed & given.keys()):
        if given[name] != saved.get(name):
            raise UserError(f"--{name} {given[name]} does not fit --start_from {path}, which has {saved.get(name)}")
    names = fixed | {"data_dir", *(flag.name for flag in FLAGS if flag.group == D)}
    return {name: saved[name] for name in names if name in saved}


def oracle_sizes(path: str, given: dict[str, Any]) -> dict[str, int]:
    """The settings that an oracle's file decides; raises UserError where a flag says otherwise."""
    if given.get("dataset", "LSTM") != "LSTM":
        raise UserError(f"--oracle_params is for --dataset LSTM, not {given['dataset']}")
    for name in ("oracle_seed", "oracle_init"):
        if name in given:
            raise UserError(f"--{name} and --oracle_params: the oracle comes from a seed or from a file")
    oracle = load_oracle(Path(path))
    sizes = {
        "vocab_size": oracle.vocab_size,
        "oracle_emb_dim": oracle.lstm.input_size,
        "oracle_hidden_dim": oracle.lstm.hidden_size,
    }
    for name, size in sizes.items():
        if given.get(name, size) != size:
            raise UserError(f"--{name} {given[name]} does not fit --oracle_params {path}, which has {size}")
    return sizes


def check(args: argparse.Namespace, checkpoint: dict[str, Any] | None) -> None:
    """Refuse combinations that can't work, before anything is written; raises UserError."""
    for name in ("log_dir", "eval_log_dir"):
        folder = Path(getattr(args, name))
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--{name} {folder} is no folder")
        try:
            str(folder).encode()  # as the checkpoint will keep it
        except UnicodeEncodeError:
            raise UserError(f"--{name} {str(folder)!r} is not UTF-8 text") from None
    if args.save_oracle is not None and not Path(args.save_oracle).absolute().parent.is_dir():
        raise UserError(f"--save_oracle {args.save_oracle}: there is no folder {Path(args.save_oracle).parent}")
    widest = max(width for width, _ in args.d_filters)
    if widest > args.seq_len:
        raise UserError(f"--d_filters: a filter of width {widest} does not fit sequences of --seq_len {args.seq_len}")
    if (needed := sum(needed_bytes(args, 1).values())) > LARGEST_MEMORY:
        raise UserError(f"out of memory: these sizes need about {needed / 2**40:.0f} TiB")
    if args.dataset == "Nottingham" and args.vocab_size != VOCAB_SIZE:
        raise UserError(f"--vocab_size {args.vocab_size}: music has {VOCAB_SIZE} tokens, a rest and the piano's keys")
    if args.save_oracle is not None and args.dataset != "LSTM":
        raise UserError(f"--save_oracle: --dataset {args.dataset} has no oracle")
    if 0 < args.train_size < args.batch_size:
        raise UserError(f"--train_size {args.train_size} does not fill one batch of --batch_size {args.batch_size}")
    if not args.is_train and not args.evaluate:
        raise UserError("--is_train False --evaluate False leaves nothing to do")
    if needs_discriminator(args) and not args.d_steps and not args.pretrain_d_epochs:
        raise UserError("--d_steps 0 --pretrain_d_epochs 0 would give rewards from a discriminator that was never trained")
    if checkpoint is not None and args.is_train:
        done = checkpoint["state"]["counts"]["epochs_done"]
        for phase, later, flag in (
            ("pretrain_g", done["pretrain_d"] + done["adversarial"], "pretrain_g_epochs"),
            ("pretrain_d", done["adversarial"], "pretrain_d_epochs"),
            ("adversarial", 0, "total_epochs"),
        ):
            if done[phase] > getattr(args, flag):
                raise UserError(f"--{flag} {getattr(args, flag)}: this run has made {done[phase]} epochs of that phase already")
            wanted = getattr(args, flag) if phase == "pretrain_g" or needs_discriminator(args) else 0
            if later and done[phase] < wanted:
                raise UserError(f"--{flag} {getattr(args, flag)}: this run finished that phase after {done[phase]} epochs")
