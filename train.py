"""Algorithm 1 of the paper: pre-train G, pre-train D, then alternate policy-gradient steps on G with training of D.

A phase is a function that runs one epoch on the state and returns the numbers worth logging. One loop (trainer.py) counts, logs,
evaluates and saves for all phases, so that resuming only means skipping epochs already counted.

Shapes: B sequences, T tokens each, N roll-outs a prefix, k passes over the discriminator's data.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from data_loader import OracleData, TuneData
from discriminator import REAL, Discriminator, products_in
from fast.completion_scores import CompletionScorer, pays
from fast.cuda_graphs import PLAIN_STEPS, Steps, make_steps, to_device
from generator import Generator, sample_in_steps
from metrics import discriminator_scores
from rewards import bleu_values, constant_values, random_values
from rollout import action_values
from support.random_streams import stream
from support.threads import on_cpu

# Standard deviations of the generator's weights: "glorot" is the command line's original, "normal" the authors' code.
GENERATOR_INIT = {
    "glorot": dict(embedding_std=0.1, output_std=1.0, output_bias_std=0.0, lstm_std=None),
    "normal": dict(embedding_std=0.1, output_std=0.1, output_bias_std=0.1, lstm_std=0.1),
}
LATER_STREAMS = ("scheduled sampling", "random reward")  # a checkpoint from before they came has used neither
PHASES = ("pretrain_g", "pretrain_d", "adversarial")

Metrics = dict[str, float | list[float]]
Data = OracleData | TuneData


@dataclass
class TrainState:
    """Everything that training changes, and nothing else.

    Attributes:
        generator: G_θ.
        policy: the roll-out policy G_β.
        discriminator: D_φ.
        optimizers: "mle" and "policy" for G (as in the original, each phase has its own), "discriminator" for D.
        streams: the named random streams that training draws from.
        epochs_done: finished epochs of each phase.
        clipped, steps: how many of G's steps in each phase had their gradient clipped, and how many there were.
        seconds: time spent, over all interruptions.
        runner: runs the steps of fixed shapes; it is not saved.
    """

    generator: Generator
    policy: Generator
    discriminator: Discriminator
    optimizers: dict[str, torch.optim.Optimizer]
    streams: dict[str, torch.Generator]
    epochs_done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    clipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    seconds: float = 0.0
    runner: Steps = PLAIN_STEPS

    @property
    def step(self) -> int:
        """The axis of the evaluation curves: epochs of G, pre-training and adversarial."""
        return self.epochs_done["pretrain_g"] + self.epochs_done["adversarial"]

    def _modules(self) -> dict[str, Any]:
        models = {"generator": self.generator, "policy": self.policy, "discriminator": self.discriminator}
        return {**models, **{f"optimizer_{name}": optimizer for name, optimizer in self.optimizers.items()}}

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors and numbers."""
        return {
            **{name: module.state_dict() for name, module in self._modules().items()},
            "streams": {name: rng.get_state() for name, rng in self.streams.items()},
            "counts": {"epochs_done": self.epochs_done, "clipped": self.clipped, "steps": self.steps},
            "seconds": self.seconds,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state; raises RuntimeError, KeyError or ValueError where it does not fit."""
        for name, module in self._modules().items():
            module.load_state_dict(saved[name])
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:  # says how the saving machine's optimisers worked
                group["capturable"] = self.generator.device.type == "cuda"
        self.runner.forget()  # optimisers have new tensors now
        for name, rng in self.streams.items():
            if name in saved["streams"] or name not in LATER_STREAMS:
                rng.set_state(saved["streams"][name])
        for name, counts in saved["counts"].items():
            getattr(self, name).update(counts)
        self.seconds = saved["seconds"]


def needs_discriminator(args: argparse.Namespace) -> bool:
    """Whether D is of any use to the run, and so trained."""
    return args.total_epochs > 0 and args.reward == "discriminator"


def make_generator(args: argparse.Namespace) -> Generator:
    """A generator of the run's sizes, its weights drawn from the run's seed, on the CPU."""
    generator = Generator(args.vocab_size, args.g_emb_dim, args.g_hidden_dim)
    return generator.initialise(stream(args.seed, "generator weights"), **GENERATOR_INIT[args.g_init])


def make_state(args: argparse.Namespace, device: torch.device) -> TrainState:
    """A new run's state: all weights drawn from the seed."""
    names = ("policy samples", "rollouts", "negatives", "shuffle", "dropout", "scheduled sampling", "random reward")
    streams = {name: stream(args.seed, name) for name in names}
    generator = make_generator(args).to(device)
    # A GPU draws its own dropout masks: drawn on the CPU and sent, they would cost more than the step.
    masks = streams["dropout"] if on_cpu(device) else torch.Generator(device)
    discriminator = Discriminator(args.vocab_size, args.d_emb_dim, args.d_filters, args.d_keep_prob, masks)
    discriminator.initialise(stream(args.seed, "discriminator weights")).to(device)

    def adam(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=learning_rate, fused=True, capturable=device.type == "cuda")

    return TrainState(
        generator=generator,
        policy=copy.deepcopy(generator).requires_grad_(False),
        discriminator=discriminator,
        optimizers={
            "mle": adam(generator, args.g_lr),
            "policy": adam(generator, args.g_lr),
            "discriminator": adam(discriminator, args.d_lr),
        },
        streams=streams,
        runner=make_steps(device, args.cuda_graphs, [masks]),
    )


def generator_step(state: TrainState, loss: Tensor, optimizer: str, grad_clip: float) -> tuple[Tensor, Tensor]:
    """One clipped optimiser step on G; returns the loss and the gradient norm before clipping."""
    state.optimizers[optimizer].zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.generator.parameters(), grad_clip)
    state.optimizers[optimizer].step()
    return loss.detach(), norm


def mle_step(state: TrainState, args: argparse.Namespace, tokens: Tensor, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One step of maximum likelihood on sequences (B, T), read as they are or as the inputs (B, T); returns loss and norm."""
    weights = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
    return generator_step(state, state.generator.weighted_nll(tokens, weights, inputs), "mle", args.grad_clip)


def policy_step(state: TrainState, args: argparse.Namespace, tokens: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """One policy-gradient step on sequences and the rewards of their actions, (B, T); returns loss and norm."""
    return generator_step(state, policy_loss(state.generator, tokens, rewards, args.policy_loss), "policy", args.grad_clip)


def samples(state: TrainState, num: int, args: argparse.Namespace, stream_name: str) -> Tensor:
    """Sequences of G drawn with one of the training's random streams, (num, T)."""
    return sample_in_steps(state.generator, num, args.seq_len, state.streams[stream_name], state.runner, "samples of G")


def pretrain_g_epoch(state: TrainState, data: Data, args: argparse.Namespace) -> Metrics:
    """Maximum likelihood: minimise −(1/(B·T)) Σ log G_θ(y_t | y_1..t−1) on real sequences; or scheduled sampling."""
    losses, norms = [], []
    omega = max(0.0, 1 - args.scheduled_sampling * state.epochs_done["pretrain_g"])
    for tokens in data.batches(args.batch_size):
        inputs = ()
        if args.scheduled_sampling:
            inputs = (state.generator.mixed_inputs(tokens, omega, state.streams["scheduled sampling"]),)
        loss, norm = state.runner.run("maximum likelihood", partial(mle_step, state, args), tokens, *inputs)
        losses.append(loss)
        norms.append(norm)
    tokens_read = len(losses) * args.batch_size * args.seq_len
    values = {"loss": _mean(losses), **_clipping(state, "pretrain_g", norms, args.grad_clip), "tokens": tokens_read}
    return {**values, "omega": omega} if args.scheduled_sampling else values


def discriminator_round(state: TrainState, data: Data, args: argparse.Namespace) -> Tensor:
    """Fresh negatives, then k passes: over all of them and the training set, or one batch each where data are drawn fresh.

    Returns:
        Mean loss, and how many real sequences were right and seen, and how many generated ones: (5,).
    """
    real = data.real(args.batch_size)  # (M, T)
    fake = samples(state, len(real), args, "negatives")  # (M, T)
    pool = torch.cat([real, fake])  # (2M, T)
    labels = torch.zeros(len(pool), dtype=torch.int64, device=pool.device)
    labels[: len(real)] = REAL
    num_batches = 1 if data.train is None else len(pool) // args.batch_size
    state.discriminator.train()
    if state.discriminator.dropout_rng is not state.streams["dropout"]:
        state.discriminator.dropout_rng.manual_seed(int(torch.randint(2**62, (), generator=state.streams["dropout"])))
    totals = torch.zeros(5, device=pool.device)  # on the device: no .item() in the loop

    step = partial(discriminator_step, state, args)
    order = None
    for _ in range(args.d_epochs):
        if order is None or args.shuffle:
            order = to_device(torch.randperm(len(pool), generator=state.streams["shuffle"]), pool.device)
        for index in order.split(args.batch_size)[:num_batches]:
            totals += state.runner.run("discriminator", step, pool[index], labels[index])
    totals[0] /= args.d_epochs * num_batches
    return totals


def discriminator_metrics(rounds: list[Tensor]) -> dict[str, float]:
    """Loss and accuracies of D over all that each `discriminator_round` returned."""
    loss, real_right, real_seen, fake_right, fake_seen = torch.stack(rounds).sum(dim=0).tolist()
    values = {"d_loss": loss / len(rounds)}
    for name, right, seen in (("real", real_right, real_seen), ("fake", fake_right, fake_seen)):
        if seen:  # a tiny round may have batches of one class only
            values[f"d_accuracy_{name}"] = right / seen
    return values


def discriminator_step(state: TrainState, args: argparse.Namespace, tokens: Tensor, labels: Tensor) -> Tensor:
    """One step of D on sequences (B, T) and classes (B,); returns (loss, real right, real seen, fake right, fake seen)."""
    state.optimizers["discriminator"].zero_grad(set_to_none=True)
    with products_in(args.d_precision, tokens.device):
        logits = state.discriminator(tokens)  # (B, 2)
        cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
        loss = cross_entropy + args.d_l2 * state.discriminator.l2() if args.d_l2 else cross_entropy
        loss.backward()
    state.optimizers["discriminator"].step()
    right, real = logits.argmax(dim=1) == labels, labels == REAL
    return torch.stack([loss.detach(), (right & real).sum(), real.sum(), (right & ~real).sum(), (~real).sum()])


def policy_loss(generator: Generator, tokens: Tensor, rewards: Tensor, reduction: str) -> Tensor:
    """−Σ Q_t · log G_θ(y_t | y_1..t−1) over B·T, or its mean (paper, Eq. 8): tokens and rewards are (B, T)."""
    return generator.weighted_nll(tokens, rewards / rewards.numel() if reduction == "mean" else rewards)


@torch.no_grad()
def follow(policy: Generator, generator: Generator, rate: float) -> None:
    """β ← rate·β + (1 − rate)·θ; rate 0 copies θ (Algorithm 1)."""
    for beta, theta in zip(policy.parameters(), generator.parameters(), strict=True):
        if rate:
            beta.lerp_(theta, 1 - rate)
        else:
            beta.copy_(theta)


def discriminator_values(state: TrainState, tokens: Tensor, num_rollouts: int) -> Tensor:
    """The action values of Eq. 4, D's probability of "real" as the reward: sequences (B, T) -> (B, T)."""
    discriminator = state.discriminator
    scorer = (
        CompletionScorer(discriminator, tokens) if pays(discriminator, tokens.numel() * num_rollouts, tokens.shape[1]) else None
    )
    score = partial(state.runner.run, "scores", discriminator.prob_real)
    return action_values(state.policy, score, tokens, num_rollouts, state.streams["rollouts"], scorer, state.runner)


def rewards_of(state: TrainState, data: Data, args: argparse.Namespace, tokens: Tensor) -> Tensor:
    """The rewards that `--reward` asks for, of each action of sequences (B, T): (B, T)."""
    if args.reward == "constant":
        return constant_values(tokens, args.reward_constant)
    if args.reward == "random":
        return random_values(tokens, state.streams["random reward"])
    if args.reward == "bleu":
        return bleu_values(state.policy, data.training_bleu(), tokens, args.rollout_num, state.streams["rollouts"], state.runner)
    return discriminator_values(state, tokens, args.rollout_num)


def adversarial_epoch(state: TrainState, data: Data, args: argparse.Namespace) -> Metrics:
    """One round of Algorithm 1: g-steps on G, d-steps on D with fresh negatives each, then β follows θ."""
    if not state.epochs_done["adversarial"]:
        follow(state.policy, state.generator, rate=0)  # β ← θ after the pre-training
    losses, norms, rewards = [], [], []
    for _ in range(args.g_steps):
        tokens = samples(state, args.batch_size, args, "policy samples")  # (B, T)
        reward = rewards_of(state, data, args, tokens)  # (B, T)
        loss, norm = state.runner.run("policy gradient", partial(policy_step, state, args), tokens, reward)
        losses.append(loss)
        norms.append(norm)
        rewards.append(reward.mean(dim=0))  # (T,)
    rounds = [discriminator_round(state, data, args) for _ in range(args.d_steps if needs_discriminator(args) else 0)]
    follow(state.policy, state.generator, args.rollout_update_rate)
    by_position = torch.stack(rewards).mean(dim=0)  # (T,)
    rollouts = args.rollout_num if args.reward in ("discriminator", "bleu") else 0
    drawn = args.batch_size * args.seq_len * (1 + rollouts * (args.seq_len - 1) / 2)  # tokens of one g-step
    return {
        "g_loss": _mean(losses),
        "reward": by_position.mean().item(),
        "reward_at": by_position.tolist(),
        **_clipping(state, "adversarial", norms, args.grad_clip),
        **(discriminator_metrics(rounds) if rounds else {}),
        "tokens": args.g_steps * drawn,
    }


def pretrain_d_epoch(state: TrainState, data: Data, args: argparse.Namespace) -> Metrics:
    """One round of discriminator pre-training, and D on held-out real and freshly generated sequences after it."""
    values = discriminator_metrics([discriminator_round(state, data, args)])
    rng = stream(args.seed, "evaluation of D", state.epochs_done["pretrain_d"] + 1)
    fresh = state.generator.sample(len(data.held_out), args.seq_len, rng)
    return {**values, **held_out_scores(state.discriminator, data.held_out, fresh)}


def held_out_scores(discriminator: Discriminator, real: Tensor, fresh: Tensor) -> dict[str, float]:
    """D's accuracy and AUC on held-out real sequences against freshly generated ones, both (M, T)."""
    scores = discriminator_scores(discriminator.prob_real(real), discriminator.prob_real(fresh))
    return {f"d_held_out_{name}": value for name, value in scores.items()}


def _mean(values: list[Tensor]) -> float:
    return torch.stack(values).mean().item()


def _clipping(state: TrainState, phase: str, norms: list[Tensor], grad_clip: float) -> dict[str, float]:
    """Mean gradient norm before clipping, and the share of the phase's steps so far that were clipped."""
    norm = torch.stack(norms)
    state.steps[phase] += len(norms)
    state.clipped[phase] += int((norm > grad_clip).sum())
    return {"grad_norm": norm.mean().item(), "clipped_share": state.clipped[phase] / state.steps[phase]}
