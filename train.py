"""Algorithm 1 of the paper, one function per phase. `# line` comments give its line numbers.

`phases` lists them in order. Each runs one epoch on the state and returns the numbers worth logging. One loop (running/trainer.py)
calls them, counts, logs, evaluates and saves, so that resuming only means skipping the epochs that are done. Line 1 is
`train_state.make_state`. The equations are computed in rollout.py (Eqs. 2 and 4) and updates.py (Eqs. 5 to 8).

Words: an *epoch* is one call of a phase; in pre-training of G it is a pass over the training set, or one batch where data are drawn
fresh. An *update* is one optimiser step on one batch. A *g-step* is one policy-gradient update with its samples and rewards. A
*d-step* is a set of fresh negatives, as many real sequences, and k passes of D over both.

Shapes: B sequences, T tokens each, M sequences of a d-step.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from data_set import DataSet
from discriminator import REAL
from metrics import discriminator_training_scores, held_out_scores
from rewards import REWARDS, drawn_tokens, trains_discriminator
from support.device import to_device
from support.random_streams import stream
from train_state import TrainState, policy_batch, policy_lr
from updates import discriminator_update, mle_update, policy_update, set_learning_rate, update_rollout_policy

Metrics = dict[str, float | list[float | None]]

D_EVALUATIONS = 50  # of D in its pre-training, about: each draws as many sequences as 15 d-steps


def phases(args: argparse.Namespace) -> list[tuple[str, Callable[..., Metrics], int]]:
    """The phases in order: name, function of one epoch, number of epochs."""
    d_epochs = args.pretrain_d_epochs if trains_discriminator(args) else 0
    return [
        ("pretrain_g", pretrain_g_epoch, args.pretrain_g_epochs),  # line 2
        ("pretrain_d", pretrain_d_epoch, d_epochs),  # lines 4 and 5
        ("adversarial", adversarial_epoch, args.total_epochs),  # lines 6 to 19; the paper repeats until SeqGAN converges
    ]


def pretrain_g_epoch(state: TrainState, data: DataSet, args: argparse.Namespace) -> Metrics:
    """Maximum likelihood on real sequences; with --scheduled_sampling, a baseline of Table 1, on partly sampled inputs."""
    losses, norms, done = [], [], state.epochs_done["pretrain_g"]
    omega = max(0.0, 1 - args.scheduled_sampling * done)
    set_learning_rate(state.optimizers["mle"], args.g_lr, args.g_schedule, done, args.pretrain_g_epochs)
    for tokens in data.batches(args.batch_size):  # line 2
        inputs = ()
        if args.scheduled_sampling:
            inputs = (state.generator.mixed_inputs(tokens, omega, state.streams["scheduled sampling"]),)
        loss, norm = mle_step(state, args, tokens, *inputs)
        losses.append(loss)
        norms.append(norm)
    tokens_read = len(losses) * args.batch_size * args.seq_len
    values = {"loss": _mean(losses), **state.count_updates("pretrain_g", norms, args.grad_clip), "tokens": tokens_read}
    return {**values, "omega": omega} if args.scheduled_sampling else values


def mle_step(state: TrainState, args: argparse.Namespace, tokens: Tensor, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One update of G by maximum likelihood on sequences (B, T), with dropout if the settings say so; returns as `mle_update`."""
    tensors = [] if inputs is None else [inputs]
    if rates := (args.g_emb_dropout, args.g_dropout) if args.g_emb_dropout or args.g_dropout else ():
        tensors = tensors or [state.generator.inputs(tokens)]
        tensors += state.generator.dropout_masks(*tokens.shape, rates, state.streams["dropout of G"])
    return state.runner.run("maximum likelihood", partial(mle_update, state, args), tokens, *tensors)


def pretrain_d_epoch(state: TrainState, data: DataSet, args: argparse.Namespace) -> Metrics:
    """One d-step; now and then, and at the end, D's scores of held-out real and freshly generated sequences."""
    values = discriminator_training_scores(d_steps(state, data, args, 1))  # lines 4 and 5
    epoch = state.epochs_done["pretrain_d"] + 1
    often = max(args.eval_every, args.pretrain_d_epochs // D_EVALUATIONS)
    if not args.evaluate or (epoch % often and epoch != args.pretrain_d_epochs):
        return values
    rng = stream(args.seed, "evaluation of D", epoch)
    fresh = state.generator.sample(len(data.held_out), args.seq_len, rng)
    return {**values, **held_out_scores(state.discriminator, data.held_out, fresh)}


def adversarial_epoch(state: TrainState, data: DataSet, args: argparse.Namespace) -> Metrics:
    """One pass of the outer loop: g-steps, then d-steps, then β ← θ."""
    done = state.epochs_done["adversarial"]
    if not done:
        update_rollout_policy(state.policy, state.generator, keep=0)  # line 3: β ← θ; lines 4 and 5 leave θ alone
        if state.reference is not None:
            update_rollout_policy(state.reference, state.generator, keep=0)
    for optimizer in ("policy", "mle"):
        set_learning_rate(state.optimizers[optimizer], policy_lr(args), args.g_schedule, done, args.total_epochs)
    g_steps, mle_steps = [], []
    for number in range(done * args.g_steps, (done + 1) * args.g_steps):  # lines 7 to 13
        if is_mle_step(number, args.mle_share):
            mle_steps.append(mle_step(state, args, data.training_batch(policy_batch(args))))
        else:
            g_steps.append(g_step(state, data, args))
    trains = args.d_steps and trains_discriminator(args)
    losses = d_steps(state, data, args, args.d_steps) if trains else []  # lines 14 to 17
    update_rollout_policy(state.policy, state.generator, args.rollout_update_rate)  # line 18: β ← θ
    return {
        **(_policy_metrics(g_steps) if g_steps else {}),
        **({"loss": _mean([loss for loss, _ in mle_steps])} if mle_steps else {}),
        **state.count_updates("adversarial", [step[1] for step in (*g_steps, *mle_steps)], args.grad_clip),
        **(discriminator_training_scores(losses) if losses else {}),
        "tokens": len(g_steps) * drawn_tokens(args) + len(mle_steps) * policy_batch(args) * args.seq_len,
    }


def is_mle_step(number: int, share: float) -> bool:
    """Whether update `number` of G in the adversarial phase, from 0, is one by maximum likelihood; this share of them are."""
    rounding = 1e-9  # in float64, 100 · 0.29 is below 29
    return math.floor((number + 1) * share + rounding) > math.floor(number * share + rounding)


def g_step(state: TrainState, data: DataSet, args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Samples, rewards, one update of G; returns the loss, the gradient norm, and the mean reward of each position, (T,)."""
    tokens = state.sample(policy_batch(args), args.seq_len, "policy samples")  # line 8: (B, T)
    rewards = REWARDS[args.reward].values(tokens, state, data, args)  # lines 9 to 11, Eq. 4: (B, T)
    loss, norm = state.runner.run("policy gradient", partial(policy_update, state, args), tokens, rewards)  # line 12, Eq. 8
    if state.generator.end_token is None:
        return loss, norm, rewards.mean(dim=0)
    counted = state.generator.counted(tokens)
    return loss, norm, (rewards * counted).sum(dim=0) / counted.sum(dim=0)  # NaN where all sequences have ended


def d_steps(state: TrainState, data: DataSet, args: argparse.Namespace, number: int) -> list[Tensor]:
    """`number` d-steps in a row, each with fresh negatives of the same G; returns what each `d_step` does.

    With a fixed training set M is its size. Where data are drawn fresh, M = B.
    """
    if data.train is not None:
        sizes = (len(data.train), args.seq_len)
        return [d_step(state, args, data.train, state.sample(*sizes, "negatives")) for _ in range(number)]  # lines 4 and 15
    # Small batches are drawn together: that takes hardly longer than to draw one of them.
    real = data.fresh_batches(args.batch_size, number).split(args.batch_size)
    fake = state.sample(args.batch_size, args.seq_len, "negatives", number).split(args.batch_size)  # lines 4 and 15
    return [d_step(state, args, *pair) for pair in zip(real, fake, strict=True)]


def d_step(state: TrainState, args: argparse.Namespace, real: Tensor, fake: Tensor) -> Tensor:
    """The k passes over real and generated sequences, (M, T) each, in batches of B in random order.

    Where data are drawn fresh, a pass is one batch: B of the 2B sequences.

    Returns:
        Mean loss; real sequences classified correctly, real sequences; generated ones classified correctly, generated ones: (5,).
    """
    pool = torch.cat([real, fake])  # (2M, T)
    labels = torch.zeros(len(pool), dtype=torch.int64, device=pool.device)
    labels[: len(real)] = REAL
    num_batches = len(pool) // args.batch_size if args.train_size else 1
    state.discriminator.train()
    if state.discriminator.dropout_rng is not state.streams["dropout"]:  # a GPU's stream can't be saved: seed it in each d-step
        state.discriminator.dropout_rng.manual_seed(int(torch.randint(2**62, (), generator=state.streams["dropout"])))
    totals = torch.zeros(5, device=pool.device)  # on the device: reading a value in the loop would wait for the GPU

    order = None
    for _ in range(args.d_epochs):  # lines 5 and 16: k passes, Eq. 5
        if order is None or args.shuffle:
            order = to_device(torch.randperm(len(pool), generator=state.streams["shuffle"]), pool.device)
        for index in order.split(args.batch_size)[:num_batches]:
            update = partial(discriminator_update, state, args)
            totals += state.runner.run("discriminator", update, pool[index], labels[index])
    totals[0] /= args.d_epochs * num_batches
    return totals


def _policy_metrics(g_steps: list[tuple[Tensor, Tensor, Tensor]]) -> Metrics:
    losses, _, rewards = zip(*g_steps, strict=True)
    by_position = torch.stack(rewards).nanmean(dim=0)  # (T,)
    reward_at = [None if math.isnan(value) else value for value in by_position.tolist()]
    return {"g_loss": _mean(losses), "reward": by_position.nanmean().item(), "reward_at": reward_at}


def _mean(values: list[Tensor]) -> float:
    return torch.stack(list(values)).mean().item()
