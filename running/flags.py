"""The flags of the command line, each declared once, and the presets, each a block that shows what it changes.

`support.command_line.Flag` says what a declaration holds; --help, presets, resuming, --start_from and the grouping of runs in
report.py are derived from it. The flags of a data set are declared with it (data_sources.py). Does not load torch: report.py
prints a table without it.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from data_sources import SOURCES
from running.training_flags import ADVERSARIAL_FLAGS, DISCRIMINATOR_FLAGS, GENERATOR_FLAGS, filter_list
from support.command_line import LARGEST_SEED, Flag, Parser, StartFrom, boolean, boolean_or_auto, real, whole

MAX_THREADS = 1024
PAPER_FILTERS = "1x100,2x200,3x200,4x200,5x200,6x100,7x100,8x100,9x100,10x100,15x160,20x160"
PAPER_FILTERS_32 = PAPER_FILTERS.replace("15x160,20x160", "16x160,24x160,32x160")  # for T = 32


PRESETS = ("default", "original", "paper", "smoke", "tuned")
# The adversarial phase of the TensorFlow code whose command line this is: it collapses (docs/oracle.md).
ORIGINAL = dict(
    **dict(preset="original", d_lr=1e-4, pretrain_d_epochs=50),
    **dict(reward_form="prob", baseline="none", rollout_num=16, policy_lr=None, policy_batch=None, kl_weight=0.0),
)
PAPER = ORIGINAL | dict(
    **dict(preset="paper", batch_size=64, train_size=10_000, shuffle=False),
    **dict(oracle_emb_dim=32, oracle_hidden_dim=32, oracle_init="normal"),
    **dict(g_hidden_dim=32, g_init="normal", pretrain_g_epochs=120),
    **dict(d_emb_dim=64, d_filters=PAPER_FILTERS, d_l2=0.2),
    **dict(total_epochs=200, policy_loss="sum"),
    **dict(eval_every=5, eval_samples=10_000, final_eval_samples=100_000, save_every=5),
)
# What smoke changes in paper: all phases in seconds. One thread, because tiny sizes gain nothing from more.
SMOKE = dict(
    **dict(preset="smoke", threads=1),
    **dict(vocab_size=50, seq_len=8, batch_size=16, train_size=128, oracle_emb_dim=8, oracle_hidden_dim=8),
    **dict(g_emb_dim=8, g_hidden_dim=8, pretrain_g_epochs=10),
    **dict(d_emb_dim=8, d_filters="1x8,2x8,4x8", pretrain_d_epochs=3, total_epochs=5, rollout_num=4),
    **dict(eval_every=2, eval_samples=200, final_eval_samples=500, sample_every=5),
)

# What tuned changes in default. Not from the paper: the settings that gave the lowest NLL_valid
# (docs/what_adversarial_training_adds.md), chosen with other seeds than those of the results.
TUNED = dict(
    **dict(preset="tuned", batch_size=64, eval_every=50),
    **dict(g_lr=0.005, g_schedule="cosine", g_emb_dropout=0.1, g_dropout=0.2, pretrain_g_epochs=3000, patience=20),
    **dict(d_keep_prob=0.5, d_lr=5e-4, pretrain_d_epochs=300, d_steps=1, total_epochs=0),
    **dict(baseline="leave_one_out", rollout_num=0, kl_weight=1.0, policy_lr=2e-4, policy_batch=256),
    **dict(judges=2),
)

_run = partial(Flag, group="the run", compared=False, resumable=True)
RUN_FLAGS = (
    _run(
        name="preset",
        type=PRESETS,
        default="default",
        resumable=False,
        start_from=StartFrom.FIXED,
        help="the settings to start from; every other flag overrides one of them. original: the adversarial phase of the "
        "TensorFlow code whose command line this is, which collapses; smoke: paper's schedule at tiny sizes, which "
        "shows in seconds that everything works, and nothing else; tuned: strong maximum likelihood, no adversarial epochs unless "
        "--total_epochs asks for them (they are gentle then), and judges for sample.py --resample",
    ),
    _run(
        name="seed",
        type=whole(0, LARGEST_SEED),
        default=1,
        resumable=False,
        start_from=StartFrom.FIXED,
        help="seed of every random stream",
    ),
    _run(name="device", type=str, default="auto", help="auto, cpu, cuda or cuda:N; auto takes CUDA where there is one"),
    _run(name="threads", type=whole(0, MAX_THREADS), default=0, help="CPU threads; 0 leaves the choice to torch"),
    _run(
        name="native_draws",
        type=("auto", "True", "False"),
        default="auto",
        help="draw and train by code compiled at the first start: on CPUs by the C compiler cc, on CUDA by Triton; auto: by torch "
        "where that fails",
    ),
    _run(
        name="dist_timeout",
        type=real(1),
        default=600.0,
        help="under torchrun, seconds for which a process waits for another one before the run ends",
    ),
    _run(name="cuda_graphs", type=boolean, default=True, help="on CUDA, record the operations of fixed shapes and replay them"),
    _run(
        name="profile",
        type=boolean,
        default=False,
        help="record one of the first epochs of each phase: traces for Perfetto in LOG_DIR/profile",
    ),
    _run(name="is_train", type=boolean, default=True, help="train; False evaluates the run's checkpoint instead"),
    _run(
        name="resume",
        type=boolean_or_auto,
        default=False,
        help="go on with the run in --log_dir (or --run_name), with its settings; auto: if it has begun, else start it",
    ),
    _run(
        name="start_from",
        type=str,
        default=None,
        resumable=False,
        compared=True,
        help="begin a new run where the pre-training of another one (folder or checkpoint) ended, with its seed, preset, data, G "
        "and D",
    ),
    _run(name="overwrite", type=boolean, default=False, resumable=False, help="replace a run that is in the log folders"),
)

_data = partial(Flag, group="data", start_from=StartFrom.FIXED)
DATA_FLAGS = (
    _data(
        name="dataset",
        type=tuple(SOURCES),
        default="LSTM",
        help="where the tokens come from: the oracle LSTM, MIDI files (Nottingham), or lines of text (Text)",
    ),
    _data(name="vocab_size", type=whole(1), default=5000, help="V, number of tokens (Nottingham: 89, Text: as the text has)"),
    _data(name="seq_len", type=whole(1), default=20, help="T, tokens in a sequence (Nottingham: 32)"),
    _data(
        name="batch_size", type=whole(1), default=32, help="B, sequences in a batch, of G and of D; torchrun's processes share them"
    ),
    _data(
        name="batch_per_rank",
        type=whole(1),
        default=None,
        start_from=StartFrom.OWN,  # the batch size that it gave is taken over
        help="B for each process of torchrun, instead of --batch_size for all",
    ),
    _data(
        name="train_size",
        type=whole(0),
        default=0,
        help="training sequences, fixed; 0 draws each batch fresh and makes a batch an epoch",
    ),
    _data(
        name="shuffle",
        type=boolean,
        default=True,
        help="a new order for each pass over the training set; False: G's batches keep their order, D's keep it within a d-step",
    ),
    *(flag for source in SOURCES.values() for flag in source.flags),
)

_evaluation = partial(Flag, group="evaluation and output", resumable=True)
EVALUATION_FLAGS = (
    _evaluation(name="evaluate", type=boolean, default=True, compared=False, help="evaluate while training"),
    _evaluation(name="eval_every", type=whole(1), default=10, help="epochs of G from one evaluation to the next"),
    _evaluation(
        name="eval_samples",
        type=whole(1),
        default=1000,
        resumable=False,
        help="sequences generated, and sequences held out, for an evaluation",
    ),
    _evaluation(name="final_eval_samples", type=whole(1), default=10_000, help="the same for the evaluation at the end"),
    _evaluation(
        name="judges",
        type=whole(0, 64),
        default=0,
        compared=False,
        help="judges to train on the best generator when the training has ended, for sample.py --resample (also: judges.py)",
    ),
    _evaluation(name="save_every", type=whole(1), default=100, compared=False, help="epochs from one checkpoint to the next"),
    _evaluation(
        name="sample_every",
        type=whole(1),
        default=100,
        compared=False,
        help="epochs of G from one set of samples to the next (songs or lines)",
    ),
    _evaluation(
        name="log_generation",
        type=boolean,
        default=False,
        compared=False,
        help="log generated sequences as images, a pixel a token",
    ),
    _evaluation(
        name="run_name",
        type=str,
        default=None,
        compared=False,
        help="name of the default log folders (default: data set, preset, seed and time)",
    ),
    _evaluation(name="log_dir", type=str, default=None, compared=False, help="the run's folder (default: logs/train/RUN_NAME)"),
    _evaluation(
        name="eval_log_dir",
        type=str,
        default=None,
        compared=False,
        help="TensorBoard folder of the evaluations (default: logs/eval/RUN_NAME)",
    ),
)
FLAGS = RUN_FLAGS + DATA_FLAGS + GENERATOR_FLAGS + DISCRIMINATOR_FLAGS + ADVERSARIAL_FLAGS + EVALUATION_FLAGS
BY_NAME = {flag.name: flag for flag in FLAGS}


def preset_settings(preset: str) -> dict[str, Any]:
    """Every setting of a preset."""
    changes = {"default": {}, "original": ORIGINAL, "paper": PAPER, "smoke": PAPER | SMOKE, "tuned": TUNED}[preset]
    values = {**{flag.name: flag.default for flag in FLAGS}, **changes}
    return {**values, "d_filters": filter_list(values["d_filters"])}


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags that are not given are absent from its result, so that presets and checkpoints can fill them."""
    parser = Parser(
        description="SeqGAN: pre-train an LSTM generator and a CNN discriminator, then train them adversarially.",
        epilog="Defaults are those of --preset default; [original: ..., paper: ..., smoke: ..., tuned: ...] are the values of "
        "other presets where they differ from default, and of --preset smoke where it differs from paper.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for flag in FLAGS:
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        blocks = (("original", ORIGINAL), ("paper", PAPER), ("smoke", SMOKE), ("tuned", TUNED))
        other = [f"{name}: {block[flag.name]}" for name, block in blocks if flag.name in block]
        flag.add_to(groups[flag.group], f" [{', '.join(other)}]" if other and flag.name != "preset" else "")
    return parser
