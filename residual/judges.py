"""Judges: discriminators trained on a finished generator, and stopped by validation sequences.

The discriminator of the adversarial training has followed a generator that changed, mostly on sequences that it has seen often. A
judge (residual/judge.py) sees fresh sequences of the generator in every batch, has regularisation, and keeps the weights with which
it knows most on validation sequences. Several judges of different sizes know more together than one.

Shapes: M sequences, T tokens each, or L ≥ T where a longer one is scored in windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_set import DataSet
from discriminator import REAL, Discriminator, scoring_rows
from generator import Generator
from residual.judge import Judge, Size
from support import schema
from support.command_line import LARGEST
from support.device import to_device
from support.random_streams import stream

BATCH = 64  # real sequences in a batch, and as many generated ones
EVERY = 50  # updates between looks at the validation sequences
PATIENCE = 12  # looks without a better value before the training ends
MOST_UPDATES = 4000
SCORED_AT_ONCE = 1000  # bounds the memory of the convolutions
SAMPLES = 2000  # generated sequences beside the validation ones, at a look
LABEL_SMOOTHING = 0.05  # the targets are 0.025 and 0.975


@dataclass(frozen=True)
class Recipe:
    """How a judge is made; judges take these in turn.

    Attributes:
        size: its sizes.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
    """

    size: Size
    learning_rate: float
    weight_decay: float


RECIPES = (
    Recipe(Size((1, 3, 5, 9), number=64, emb_dim=32, lags=16, drop=0.5), 1e-3, 0.05),
    Recipe(Size((3, 7, 15), number=96, emb_dim=16, lags=16, drop=0.5), 1e-3, 0.1),
    Recipe(Size((2, 4, 8), number=64, emb_dim=24, lags=24, drop=0.4), 1e-3, 0.1),
    Recipe(Size((5, 11), number=96, emb_dim=32, lags=12, drop=0.4), 5e-4, 0.2),
)


_SIZE = schema.whole(1, LARGEST)
_JUDGE = schema.record(
    {
        "widths": schema.list_of(_SIZE, longest=100, shortest=1),
        **dict.fromkeys(("number", "emb_dim"), _SIZE),
        "lags": schema.whole(0, LARGEST),
        "drop": schema.number(0, 0.99),
    },
    closed=True,
)
_FILTERS = schema.list_of(schema.list_of(_SIZE, longest=2, shortest=2), longest=1000, shortest=1)
_WEIGHTS = schema.mapping(schema.anything)  # compared with the model's where it is made
_JUDGED = schema.record({"judge": _JUDGE, "weights": _WEIGHTS}, closed=True)
_OWN = schema.record({"filters": _FILTERS, "emb_dim": _SIZE, "weights": _WEIGHTS}, closed=True)  # a run's own D
# What `Judges.state_dict` gives.
SAVED = schema.record(
    {
        "seq_len": _SIZE,
        "end_token": schema.optional(schema.whole(0, LARGEST)),
        "beta": schema.number(0, 1e6),
        "models": schema.list_of(schema.either("judge", _JUDGED, _OWN), longest=1000, shortest=1),
    }
)


class Judges:
    """One or several discriminators and β: the score s of sequences, which is the mean of their logits.

    Args:
        models: the judges, or a run's own D, on the generator's device.
        seq_len: T, the length that they have learnt.
        end_token: the absorbing token where sequences are of variable length, or None.
        beta: β.
    """

    def __init__(self, models: Sequence[Judge | Discriminator], seq_len: int, end_token: int | None, beta: float = 1.0):
        self.models, self.seq_len, self.end_token, self.beta = models, seq_len, end_token, beta

    @torch.no_grad()
    def scores(self, tokens: Tensor) -> Tensor:
        """The score s of sequences: (M, L) -> (M,).

        A sequence of more than T tokens is scored in windows of T beside each other, the last one at its end, and s is the sum
        over the windows, each counted by its share of new tokens. Windows behind the end of a sequence count nothing.

        Raises:
            ValueError: L is less than T.
        """
        length = tokens.shape[1]
        if length < self.seq_len:
            raise ValueError(f"judges of {self.seq_len} tokens can't score sequences of {length}")
        total = self._scores(tokens[:, : self.seq_len])
        for start in range(self.seq_len, length, self.seq_len):
            new = min(self.seq_len, length - start)  # tokens that no window before has
            window = tokens[:, start + new - self.seq_len : start + new]
            going_on = tokens[:, start - 1] != (-1 if self.end_token is None else self.end_token)
            total = total + self._scores(window) * going_on * (new / self.seq_len)
        return total

    def _scores(self, tokens: Tensor) -> Tensor:
        return torch.stack([logit(model, tokens) for model in self.models]).mean(dim=0)

    def state_dict(self) -> dict[str, Any]:
        """As tensors and numbers, for a file."""
        own = {"seq_len": self.seq_len, "end_token": self.end_token, "beta": self.beta}
        models = [
            {"judge": model.sizes(), "weights": model.state_dict()}
            if isinstance(model, Judge)
            else {"filters": [list(f) for f in model.filters], "emb_dim": model.embed.embedding_dim, "weights": model.state_dict()}
            for model in self.models
        ]
        return {**own, "models": models}

    @classmethod
    def from_state_dict(cls, saved: dict[str, Any], vocab_size: int, device: torch.device) -> Judges:
        """What `state_dict` gave; raises UnfitError where it is anything else, or for another V."""
        SAVED(saved, "judges")
        models = []
        for number, part in enumerate(saved["models"]):
            if any(width > saved["seq_len"] for width, _ in part.get("filters", ())):
                raise schema.UnfitError(f"judges.models[{number}].filters: wider than {saved['seq_len']} tokens")

            def make(part: dict[str, Any] = part) -> Judge | Discriminator:
                if "judge" not in part:
                    return Discriminator(vocab_size, part["emb_dim"], part["filters"])
                size = Size(**{**part["judge"], "widths": tuple(part["judge"]["widths"])})
                return Judge(vocab_size, saved["seq_len"], saved["end_token"], size)

            with schema.without_memory():
                weights = make().state_dict()
            schema.tensors_like(weights)(part["weights"], f"judges.models[{number}].weights")
            model = make()
            model.load_state_dict(part["weights"])
            models.append(model.to(device))
        return cls(models, saved["seq_len"], saved["end_token"], float(saved["beta"]))


@torch.no_grad()
def logit(model: Judge | Discriminator, tokens: Tensor) -> Tensor:
    """The logit of D, log D/(1 − D), without dropout: (M, T) -> (M,).

    Leaves the model in evaluation mode, since other threads may be scoring at the same time.
    """
    model.eval()
    if isinstance(model, Judge):
        return torch.cat([model(part) for part in tokens.split(SCORED_AT_ONCE)])
    rows = scoring_rows(tokens.shape[1], model.filters, model.embed.embedding_dim, tokens.device.type)
    both = torch.cat([model(part) for part in tokens.split(rows)])  # (M, 2)
    return both[:, REAL] - both[:, 1 - REAL]


def train_judge(
    generator: Generator, data: DataSet, number: int, seed: int, show: Callable[[int, float], None] = lambda *_: None
) -> tuple[Judge, int, float]:
    """Train one judge on training sequences and fresh ones of G.

    Args:
        generator: G, which is not changed.
        data: the run's data, with validation sequences.
        number: which judge, from 0; it decides its size and its random streams.
        seed: of the random streams.
        show: called at each look with the number of updates and the loss.

    Returns:
        The judge with its best weights; after how many updates; its cross-entropy on validation sequences and samples, in nats.
    """
    recipe, seq_len, device = RECIPES[number % len(RECIPES)], data.seq_len, generator.device
    rng = {purpose: stream(seed, f"judge {number}: {purpose}") for purpose in ("weights", "samples", "dropout", "looks")}
    dropout = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng["dropout"])))
    model = Judge(data.vocab_size, seq_len, generator.end_token, recipe.size, dropout)
    model.initialise(rng["weights"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    samples = generator.sample(SAMPLES, seq_len, rng["looks"])
    of_real, of_samples = 1 - LABEL_SMOOTHING / 2, LABEL_SMOOTHING / 2
    targets = to_device(torch.tensor([of_real] * BATCH + [of_samples] * BATCH), device)

    best, kept, at = math.inf, {}, 0
    for update in range(1, MOST_UPDATES + 1):
        batch = torch.cat([data.training_batch(BATCH), generator.sample(BATCH, seq_len, rng["samples"])])
        model.train()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.binary_cross_entropy_with_logits(model(batch), targets).backward()
        optimizer.step()
        if update % EVERY == 0:
            loss = cross_entropy(logit(model, data.valid), logit(model, samples))
            show(update, loss)
            if loss < best:
                best, at = loss, update
                kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
            if update - at >= PATIENCE * EVERY:
                break
    model.load_state_dict(kept)
    return model, at, best


def cross_entropy(of_real: Tensor, of_samples: Tensor) -> float:
    """Cross-entropy of logits for real sequences, (M,), and for generated ones, (S,), both kinds counting half; in nats."""
    softplus = torch.nn.functional.softplus
    return (softplus(-of_real).mean().item() + softplus(of_samples).mean().item()) / 2
