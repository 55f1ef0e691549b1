"""What the curves show: NLL_oracle and NLL_test, entropies, divergences, and D's accuracy and AUC on held-out sequences.

Shapes: M sequences, T tokens each. NLLs are in nats per token.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from discriminator import Discriminator
from generator import Generator
from support import world
from support.threads import on_cpu, run_all

LOGITS_AT_ONCE = 2**22  # numbers of (M, T, V)
SEQUENCES_AT_ONCE = 1000  # bounds the memory of the LSTM's hidden states
SEQUENCES_OF_A_THREAD = 250  # on a CPU, where each thread takes so many


def sequence_nll(model: Generator, tokens: Tensor) -> Tensor:
    """−log-likelihood of whole sequences under a model, in nats: (M, T) -> (M,) float64."""
    own = tokens[world.rows(len(tokens))]
    parts = own.split(SEQUENCES_OF_A_THREAD if on_cpu(tokens.device) else SEQUENCES_AT_ONCE)
    nll = torch.cat(run_all([lambda part=part: model.nll(part).double().sum(dim=1) for part in parts], tokens.device))
    return world.gather(nll, len(tokens))


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent values, (M,), and its standard error, which is NaN for a single one."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error


def mean_nll(model: Generator, tokens: Tensor) -> tuple[float, float]:
    """Mean −log-likelihood per token of sequences (M, T) under a model, and its standard error over sequences."""
    return mean_and_error(sequence_nll(model, tokens) / tokens.shape[1])


def ratio_and_error(totals: Tensor, counts: Tensor) -> tuple[float, float]:
    """Σ totals / Σ counts of independent sequences, (M,) each, and its standard error (delta method); NaN for a single one."""
    ratio = (totals.sum() / counts.sum()).item()
    if len(totals) < 2:
        return ratio, math.nan
    residuals = totals - ratio * counts
    return ratio, (residuals.square().sum().sqrt() / counts.sum() * math.sqrt(len(totals) / (len(totals) - 1))).item()


class Likelihoods(NamedTuple):
    """−log-likelihoods of whole sequences in nats, float64: samples of G (M,) and of the oracle (R,), each under both."""

    g_of_g: Tensor
    oracle_of_g: Tensor
    g_of_oracle: Tensor
    oracle_of_oracle: Tensor


def divergences(nll: Likelihoods, seq_len: int) -> dict[str, float]:
    """How far G is from the oracle, both ways, by Monte Carlo with exact log-likelihoods; each with its standard error.

    Args:
        nll: of samples of both, drawn independently.
        seq_len: T.

    Returns:
        `entropy_g`, H(G); `kl_g_oracle`, KL(G‖oracle) = NLL_oracle − H(G); `kl_oracle_g`, KL(oracle‖G) = NLL_test − H(oracle),
        all in nats per token; `jsd`, the Jensen-Shannon divergence of the distributions of whole sequences, in nats: 0 for equal
        ones, ln 2 = 0.693 where no sequence is likely under both. For long sequences it is near
        ln 2 even if the token distributions are similar.
    """
    # log of G/M and oracle/M, M = (G + oracle)/2: −log((1 + other/own)/2), the ratio as a difference of logs
    of_g = math.log(2) - torch.nn.functional.softplus(nll.g_of_g - nll.oracle_of_g)
    of_oracle = math.log(2) - torch.nn.functional.softplus(nll.oracle_of_oracle - nll.g_of_oracle)
    jsd = [mean_and_error(part) for part in (of_g, of_oracle)]
    measured = {
        "entropy_g": mean_and_error(nll.g_of_g / seq_len),
        "kl_g_oracle": mean_and_error((nll.oracle_of_g - nll.g_of_g) / seq_len),
        "kl_oracle_g": mean_and_error((nll.g_of_oracle - nll.oracle_of_oracle) / seq_len),
        "jsd": (sum(mean for mean, _ in jsd) / 2, math.hypot(*(error for _, error in jsd)) / 2),
    }
    return with_errors(measured)


@torch.no_grad()
def token_jsd(one: Generator, other: Generator, tokens: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two models' distributions of the next token, in nats, mean over the steps of each sequence.

    Exact at each step, so that it shows differences where that of whole sequences is at ln 2.

    Args:
        one: a model.
        other: another one over the same tokens.
        tokens: sequences whose prefixes both models are given, (M, T).

    Returns:
        (M,) float64, between 0 and ln 2.
    """
    results = []
    for part in tokens.split(max(1, LOGITS_AT_ONCE // (tokens.shape[1] * one.vocab_size))):
        log_p, log_q = one(part), other(part)  # (M', T, V)
        log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
        divergence = sum((log.exp() * (log - log_mean)).nan_to_num(0.0).sum(dim=2) for log in (log_p, log_q)) / 2
        results.append(divergence.double().mean(dim=1))
    return torch.cat(results)


def with_errors(measured: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Means and standard errors as `name` and `name_error`; an error that is not known is left out."""
    values = {}
    for name, (mean, error) in measured.items():
        values[name] = mean
        if not math.isnan(error):
            values[f"{name}_error"] = error
    return values


def entropy(model: Generator, num: int, seq_len: int, rng: torch.Generator) -> tuple[float, float]:
    """Monte Carlo estimate of a model's entropy per token from `num` own sequences, and its standard error."""
    return mean_nll(model, model.sample(num, seq_len, rng))


def auc(positive: Tensor, negative: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half; 1-D tensors."""
    ordered, positive = negative.sort().values, positive.contiguous()
    below = torch.searchsorted(ordered, positive).double()
    not_above = torch.searchsorted(ordered, positive, right=True).double()
    return ((below + not_above) / 2).mean().item() / len(negative)


def discriminator_scores(prob_real: Tensor, prob_generated: Tensor) -> dict[str, float]:
    """Accuracy on each class at the threshold 1/2, and AUC, from D's probability of "real" for both."""
    return {
        "accuracy_real": (prob_real > 0.5).double().mean().item(),
        "accuracy_fake": (prob_generated <= 0.5).double().mean().item(),
        "auc": auc(prob_real, prob_generated),
    }


def held_out_scores(discriminator: Discriminator, real: Tensor, fresh: Tensor) -> dict[str, float]:
    """D's accuracy and AUC on held-out real sequences against freshly generated ones, both (M, T)."""
    scores = discriminator_scores(discriminator.prob_real(real), discriminator.prob_real(fresh))
    return {f"d_held_out_{name}": value for name, value in scores.items()}


def discriminator_training_scores(d_steps: list[Tensor]) -> dict[str, float]:
    """D's loss and accuracies on its training batches, over all that each `train.d_step` returned."""
    loss, real_right, real_seen, fake_right, fake_seen = torch.stack(d_steps).sum(dim=0).tolist()
    values = {"d_loss": loss / len(d_steps)}
    for name, right, seen in (("real", real_right, real_seen), ("fake", fake_right, fake_seen)):
        if seen:  # tiny batches may all be of one class
            values[f"d_accuracy_{name}"] = right / seen
    return values
