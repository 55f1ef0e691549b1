"""What training changes: θ, β and φ, their optimisers, the random streams and the counts."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from discriminator import Discriminator
from fast.cuda_graphs import PLAIN_RUNNER, Runner, make_runner
from generator import GENERATOR_INIT, Generator, sample_with_runner
from support.random_streams import stream
from support.threads import on_cpu
from support.torchrun import number_of_ranks

END_TOKEN = 0  # where sequences are of variable length; also the start token
PHASES = ("pretrain_g", "pretrain_d", "adversarial")
STREAMS = (
    *("policy samples", "rollouts", "negatives", "shuffle", "dropout"),
    *("scheduled sampling", "random reward", "dropout of G"),
)


@dataclass
class TrainState:
    """Everything that training changes, and nothing else.

    Attributes:
        generator: G_θ.
        policy: the roll-out policy G_β.
        discriminator: D_φ.
        reference: G as the pre-training left it, where the policy gradient is held close to it; otherwise None.
        optimizers: "mle" and "policy" for G, one per phase as in the TensorFlow code; "discriminator" for D.
        streams: the random streams that training draws from, by purpose.
        epochs_done: finished epochs of each phase.
        updates: optimiser steps on G in each phase.
        clipped: how many of them had their gradient clipped.
        seconds: training time, over all interruptions.
        runner: runs updates, sampling and scoring, directly or as CUDA graphs; it is not saved.
    """

    generator: Generator
    policy: Generator
    discriminator: Discriminator
    reference: Generator | None
    optimizers: dict[str, torch.optim.Optimizer]
    streams: dict[str, torch.Generator]
    epochs_done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    updates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    clipped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    seconds: float = 0.0
    runner: Runner = PLAIN_RUNNER

    @property
    def g_epochs(self) -> int:
        """Epochs of G, pre-training and adversarial: the axis of the evaluation curves, `step` in the logs."""
        return self.epochs_done["pretrain_g"] + self.epochs_done["adversarial"]

    def sample(self, num: int, seq_len: int, stream_name: str, batches: int = 1) -> Tensor:
        """Sequences of G drawn from one of the training's random streams, (batches · num, seq_len); see `sample_with_runner`."""
        return sample_with_runner(self.generator, num, seq_len, self.streams[stream_name], self.runner, "samples of G", batches)

    def count_updates(self, phase: str, norms: Sequence[Tensor], grad_clip: float) -> dict[str, float]:
        """Count updates of G by their gradient norms before clipping.

        Returns:
            The mean norm, and the share of the phase's updates so far that were clipped.
        """
        norm = torch.stack(list(norms))
        self.updates[phase] += len(norms)
        self.clipped[phase] += int((norm > grad_clip).sum())
        return {"grad_norm": norm.mean().item(), "clipped_share": self.clipped[phase] / self.updates[phase]}

    def _modules(self) -> dict[str, Any]:
        models = {"generator": self.generator, "policy": self.policy, "discriminator": self.discriminator}
        if self.reference is not None:
            models["reference"] = self.reference
        return {**models, **{f"optimizer_{name}": optimizer for name, optimizer in self.optimizers.items()}}

    def _counts(self) -> dict[str, dict[str, int]]:
        return {"epochs_done": self.epochs_done, "clipped": self.clipped, "steps": self.updates}

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors and numbers."""
        return {
            **{name: module.state_dict() for name, module in self._modules().items()},
            "streams": {name: rng.get_state() for name, rng in self.streams.items()},
            "counts": self._counts(),
            "seconds": self.seconds,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state; raises RuntimeError, KeyError or ValueError where it does not fit."""
        for name, module in self._modules().items():
            if name == "reference" and not saved["counts"]["epochs_done"]["adversarial"]:
                continue  # it is copied from G when that phase begins
            module.load_state_dict(saved[name])
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:  # the settings of this run and device, not of those that saved
                group.update(optimizer.defaults)
        self.runner.forget()  # the optimisers have new tensors
        for name, rng in self.streams.items():
            rng.set_state(saved["streams"][name])
        for name, counts in self._counts().items():
            counts.update(saved["counts"][name])
        self.seconds = saved["seconds"]


def policy_lr(args: argparse.Namespace) -> float:
    """The learning rate of G in the adversarial phase."""
    return args.g_lr if args.policy_lr is None else args.policy_lr


def policy_batch(args: argparse.Namespace) -> int:
    """How many sequences a g-step draws."""
    return args.batch_size if args.policy_batch is None else args.policy_batch


def unset_generator(args: argparse.Namespace) -> Generator:
    """A generator of the run's sizes, its weights not yet drawn."""
    end_token = END_TOKEN if args.variable_length else None
    return Generator(args.vocab_size, args.g_emb_dim, args.g_hidden_dim, end_token=end_token)


def make_generator(args: argparse.Namespace) -> Generator:
    """A generator of the run's sizes, its weights drawn from the run's seed, on the CPU."""
    return unset_generator(args).initialise(stream(args.seed, "generator weights"), **GENERATOR_INIT[args.g_init])


def make_reference(generator: Generator) -> Generator:
    """A copy of a generator that is not trained."""
    reference = copy.deepcopy(generator).requires_grad_(False)
    reference.lstm.flatten_parameters()  # on CUDA a copy's weights lie apart, and cuDNN would join them in each call
    return reference


def make_state(args: argparse.Namespace, device: torch.device) -> TrainState:
    """Line 1 of Algorithm 1: a new run's state, all weights drawn from the seed."""
    streams = {name: stream(args.seed, name) for name in STREAMS}
    generator = make_generator(args).to(device)
    # A GPU draws its own dropout masks: drawing them on the CPU and copying them takes longer than the update.
    masks = streams["dropout"] if on_cpu(device) else torch.Generator(device)
    discriminator = Discriminator(args.vocab_size, args.d_emb_dim, args.d_filters, args.d_keep_prob, masks)
    discriminator.initialise(stream(args.seed, "discriminator weights")).to(device)

    def adam(model: torch.nn.Module, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        trained = [p for p in model.parameters() if p.requires_grad]
        decay = dict(weight_decay=weight_decay, decoupled_weight_decay=True) if weight_decay else {}
        return torch.optim.Adam(trained, lr=learning_rate, fused=True, capturable=device.type == "cuda", **decay)

    return TrainState(
        generator=generator,
        policy=copy.deepcopy(generator).requires_grad_(False),
        discriminator=discriminator,
        reference=make_reference(generator) if args.kl_weight else None,
        optimizers={
            "mle": adam(generator, args.g_lr, args.g_weight_decay),
            "policy": adam(generator, policy_lr(args)),
            "discriminator": adam(discriminator, args.d_lr),
        },
        streams=streams,
        runner=make_runner(device, args.cuda_graphs and number_of_ranks() == 1, [masks]),  # a graph can't hold the ranks' exchanges
    )
