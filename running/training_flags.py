"""The flags of G, of D and of the adversarial phase; running/flags.py holds the others and the presets."""

from __future__ import annotations

import argparse
from functools import partial

from support.command_line import LARGEST, Flag, StartFrom, real, whole

FILTERS = "3x50,5x80,5x80,5x100"


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


def share_below_one(text: str) -> float:
    """An argparse type: a number from 0 to below 1."""
    value = real(0, 1)(text)
    if value == 1:
        raise argparse.ArgumentTypeError("must be below 1")
    return value


_generator = partial(Flag, group="generator G", start_from=StartFrom.FIXED)
GENERATOR_FLAGS = (
    _generator(name="g_emb_dim", type=whole(1), default=32, help="E, G's embedding size"),
    _generator(name="g_hidden_dim", type=whole(1), default=50, help="H, G's hidden units"),
    _generator(
        name="g_init",
        type=("glorot", "normal"),
        default="glorot",
        help="G's weights: Glorot uniform LSTM, or all N(0, 0.1²)",
    ),
    _generator(name="g_lr", type=real(0, low_open=True), default=0.01, help="Adam's learning rate in the pre-training of G"),
    _generator(
        name="g_schedule",
        type=("constant", "cosine"),
        default="constant",
        start_from=StartFrom.INHERITED,
        help="G's learning rate in each phase: constant, or falling to 3 % of its first value along a half cosine wave",
    ),
    _generator(
        name="g_emb_dropout",
        type=share_below_one,
        default=0.0,
        start_from=StartFrom.INHERITED,
        help="share of G's embeddings that plain dropout drops in maximum likelihood, anew at each step; tuned with LSTM: 0",
    ),
    _generator(
        name="g_dropout",
        type=share_below_one,
        default=0.0,
        start_from=StartFrom.INHERITED,
        help="the same of the LSTM's output, between LSTM and output layer; not of the state that its next step reads",
    ),
    _generator(
        name="g_weight_decay",
        type=real(0),
        default=0.0,
        start_from=StartFrom.INHERITED,
        help="decoupled weight decay (AdamW) of all of G's weights in maximum likelihood",
    ),
    _generator(
        name="patience",
        type=whole(0),
        default=0,
        start_from=StartFrom.INHERITED,
        help="end maximum likelihood after so many evaluations without a lower NLL_valid, and go on from G's best weights; "
        "0: never, and go on from the last ones",
    ),
    _generator(name="grad_clip", type=real(0, low_open=True), default=5.0, help="largest gradient norm of G"),
    _generator(
        name="pretrain_g_epochs",
        type=whole(0),
        default=1000,
        resumable=True,
        help="epochs of maximum likelihood (a batch or a pass each: --train_size; Nottingham: 500)",
    ),
    _generator(
        name="scheduled_sampling",
        type=real(0, 1),
        default=0.0,
        help="decrease per epoch of ω, the share of real inputs in scheduled sampling (the paper: 0.002); 0: MLE",
    ),
)

_discriminator = partial(Flag, group="discriminator D", start_from=StartFrom.INHERITED)
DISCRIMINATOR_FLAGS = (
    _discriminator(name="d_emb_dim", type=whole(1), default=32, start_from=StartFrom.FIXED_WITH_D, help="D's embedding size"),
    _discriminator(
        name="d_filters",
        type=filter_list,
        default=FILTERS,
        start_from=StartFrom.FIXED_WITH_D,
        help="convolutions, WIDTHxNUMBER,... (paper, T = 32: 16, 24, 32 instead of 15, 20)",
    ),
    _discriminator(
        name="d_keep_prob",
        type=real(0, 1, low_open=True),
        default=0.75,
        help="share of D's features that dropout keeps in training",
    ),
    _discriminator(name="d_l2", type=real(0), default=0.0, help="weight of (‖W‖² + ‖b‖²)/2 of D's output layer"),
    _discriminator(name="d_lr", type=real(0, low_open=True), default=1e-3, help="Adam's learning rate for D"),
    _discriminator(
        name="d_precision",
        type=("float32", "tf32", "bf16"),
        default="float32",
        resumable=True,
        help="precision of the matrix products in D's training: tf32 needs CUDA; rewards are always computed in float32",
    ),
    _discriminator(
        name="pretrain_d_epochs",
        type=whole(0),
        default=6000,
        resumable=True,
        help="d-steps before the adversarial phase, each with fresh negatives and k passes (Nottingham, Text: 300)",
    ),
    _discriminator(
        name="d_epochs",
        type=whole(1),
        default=3,
        help="k, passes over the negatives of a d-step (batches, where data are drawn fresh)",
    ),
)

_adversarial = partial(Flag, group="adversarial training (Algorithm 1)")
ADVERSARIAL_FLAGS = (
    _adversarial(
        name="total_epochs",
        type=whole(0),
        default=1000,
        resumable=True,
        help="adversarial epochs, after the pre-training (Nottingham: 500)",
    ),
    _adversarial(name="g_steps", type=whole(1), default=1, help="g-steps an epoch, each one policy-gradient update"),
    _adversarial(
        name="d_steps",
        type=whole(0),
        default=5,
        help="d-steps an epoch, each with fresh negatives and k passes; 0: D stays as its pre-training left it",
    ),
    _adversarial(
        name="reward",
        type=("discriminator", "bleu", "constant", "random", "shuffled"),
        default="discriminator",
        help="bleu is PG-BLEU; the others are controls without information: constant, random, shuffled (D's values of another "
        "sequence of the batch)",
    ),
    _adversarial(
        name="reward_constant",
        type=real(0, 1e6, low_open=True),
        default=0.5,
        requires=("reward", ("constant",)),
        help="the reward of --reward constant",
    ),
    _adversarial(
        name="reward_form",
        type=("prob", "log", "minus_log", "logit"),
        default="logit",
        requires=("reward", ("discriminator", "shuffled")),
        help="what of D's probability p is the reward: p, log p, −log(1 − p), or the logit, with p kept 1e-4 from 0 and 1",
    ),
    _adversarial(
        name="baseline",
        type=("none", "leave_one_out", "state"),
        default="state",
        help="what is subtracted from the rewards at each position: the mean over the other sequences of the batch, or the state's "
        "value, which a line through the other sequences predicts from the roll-outs of the position before",
    ),
    _adversarial(
        name="rollout_num",
        type=whole(0),
        default=2,
        help="N, roll-outs of each prefix (Eq. 4); 0: every action has the reward of its whole sequence",
    ),
    _adversarial(
        name="rollout_update_rate",
        type=real(0, 1),
        default=0.0,
        help="rate in β ← rate·β + (1 − rate)·θ after each adversarial epoch; 0: β ← θ",
    ),
    _adversarial(
        name="policy_loss",
        type=("mean", "sum"),
        default="mean",
        help="whether the policy loss is the mean or the sum over the B·T tokens (Eq. 8)",
    ),
    _adversarial(
        name="policy_lr",
        type=real(0, low_open=True),
        default=1e-3,
        help="Adam's learning rate for G in this phase (original, paper: --g_lr)",
    ),
    _adversarial(name="policy_batch", type=whole(1), default=128, help="sequences of a g-step (original, paper: --batch_size)"),
    _adversarial(
        name="kl_weight",
        type=real(0),
        default=0.2,
        help="λ in reward − λ·KL(G‖G_MLE), where G_MLE is G as the pre-training left it; exact over the vocabulary at each step "
        "(Nottingham, Text: 1)",
    ),
    _adversarial(
        name="mle_share",
        type=real(0, 1),
        default=0.0,
        help="share of G's updates in this phase that are maximum likelihood instead of policy gradient; 1: MLE goes on",
    ),
)
