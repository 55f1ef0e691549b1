"""The residual model as a language model: its likelihoods of whole sequences, and draws from it by resampling."""

from __future__ import annotations

import torch
from torch import Tensor

from generator import Generator
from residual.judges import Judges
from residual.weights import effective_candidates, resample

AT_ONCE = 10_000  # sequences drawn at a time: bounds the memory of the LSTM's states


class ResidualModel:
    """P(Y) = G(Y) · exp(β · s(Y)) / Z, with what `metrics` and data sets read of a generator.

    Args:
        generator: G.
        judges: s and β.
        log_z: the logarithm of Z.
    """

    def __init__(self, generator: Generator, judges: Judges, log_z: float):
        self.generator, self.judges, self.log_z = generator, judges, log_z

    def counted(self, tokens: Tensor) -> Tensor:
        """As `Generator.counted`."""
        return self.generator.counted(tokens)

    @torch.no_grad()
    def nll(self, tokens: Tensor) -> Tensor:
        """−log-likelihood of each sequence, given as numbers whose sum it is: (M, T) -> (M, T), in nats.

        They are those of G, and what the judges know of the whole sequence is added to the last one: only the sums mean something.
        """
        nll = self.generator.nll(tokens)
        nll[:, -1] += self.log_z - self.judges.beta * self.judges.scores(tokens)
        return nll


def draw_resampled(
    generator: Generator,
    judges: Judges,
    num: int,
    length: int,
    candidates: int,
    rngs: tuple[torch.Generator, torch.Generator],
    temperature: float = 1.0,
    prefix: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Sequences, each chosen among candidates of G with probability proportional to exp(β · s).

    Args:
        generator: G.
        judges: s and β.
        num: how many sequences, N.
        length: tokens in each.
        candidates: K, for each sequence.
        rngs: CPU random streams of the candidates and of the choices.
        temperature: of the candidates.
        prefix: tokens that every sequence begins with.

    Returns:
        int64 (N, length), and how many candidates are effective (`effective_candidates`).
    """
    drawn = generator.sample(num * candidates, length, rngs[0], temperature, prefix)
    scores = judges.scores(drawn).view(num, candidates)
    chosen = torch.arange(num) * candidates + resample(scores, judges.beta, rngs[1])
    return drawn[chosen.to(drawn.device)], effective_candidates(scores, judges.beta)


def draw_in_parts(
    generator: Generator,
    judges: Judges | None,
    num: int,
    length: int,
    candidates: int,
    rngs: tuple[torch.Generator, torch.Generator],
    temperature: float = 1.0,
    prefix: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Any number of sequences, chosen as by `draw_resampled`, or plain ones of G where there are no judges.

    Args: as for `draw_resampled`; without judges, there is one candidate each.

    Returns:
        int64 (num, length) on the CPU, and how many candidates are effective, 0 without judges.
    """
    parts, effective = [], 0.0
    at_once = max(1, AT_ONCE // candidates)
    for first in range(0, num, at_once):
        size = min(at_once, num - first)
        if judges is None:
            part = generator.sample(size, length, rngs[0], temperature, prefix)
        else:
            part, of_part = draw_resampled(generator, judges, size, length, candidates, rngs, temperature, prefix)
            effective += of_part * size / num
        parts.append(part.cpu())
    return torch.cat(parts), effective
