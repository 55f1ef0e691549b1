"""Trains judges on a run's generator, measures what they know beyond it, and keeps both in the run's folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from data_set import DataSet
from generator import Generator
from metrics import auc, ratio_and_error, sequence_nll, with_errors
from residual.judges import MOST_UPDATES, Judges, train_judge
from residual.model import ResidualModel, draw_in_parts
from residual.weights import MOST_ERROR, choose_beta, effective_candidates, knowledge, log_normaliser
from running.checkpoint import SavedModels, load_models, saved_generator
from running.judges_file import end_token, judges_fit, own_discriminator, save_judges
from running.run_folder import JUDGES, JUDGES_NUMBERS
from support.errors import UserError
from support.files import write_json
from support.random_streams import stream

SAMPLES = 20_000  # sequences of G that estimate Z
SHOWN_EVERY = 1000  # updates of a judge, where there is no progress bar
CANDIDATES = 8  # of each of the resampled sequences that are measured
# What the likelihoods of the residual model and draws by few candidates do not give together.
OF_ONE_DISTRIBUTION = ("entropy_g", "kl_g_oracle", "jsd")


class Judging(NamedTuple):
    """How to judge.

    Attributes:
        judges: how many; 0 takes the run's own D.
        seed: of the judges and of the samples.
        samples: how many sequences of G estimate Z.
    """

    judges: int
    seed: int
    samples: int = SAMPLES


def judge(folder: Path, saved: SavedModels, data: DataSet, judging: Judging, show: Callable[[str], None]) -> None:
    """Train judges on a generator, choose β, measure, and write judges.pt and judges.json.

    Args:
        folder: the run's.
        saved: its models.
        data: its data.
        judging: how.
        show: prints a line.

    Raises:
        UserError: there are no validation sequences, or no trained D where the run's own is asked for, or the models do not fit.
        OSError: a file can't be written.
    """
    if data.valid is None:
        raise UserError(f"{folder}: there are no validation sequences to stop the judges by")
    generator = saved_generator(saved).to(data.held_out.device)
    show(f"judging {saved.about}")
    judges = trained_judges(judging, saved, generator, data, show)
    numbers = measure(judges, generator, data, judging, saved.args.final_eval_samples)
    save_judges(folder / JUDGES, judges, generator, saved.path.name)
    write_json(folder / JUDGES_NUMBERS, {"which": saved.path.name, **numbers})
    report(numbers, show)


def resampled_measures(
    generator: Generator, judges: Judges, data: DataSet, judging: Judging, log_z: float, held_out: Tensor, num: int
) -> dict[str, float]:
    """What the data set measures of `num` sequences chosen among CANDIDATES each; NLLs of real ones are the residual model's."""
    rngs = (stream(judging.seed, "resampled candidates"), stream(judging.seed, "resampling"))
    samples, _ = draw_in_parts(generator, judges, num, data.seq_len, CANDIDATES, rngs)
    measures = data.measure(ResidualModel(generator, judges, log_z), samples.to(held_out.device), held_out)
    kept = {name: value for name, value in measures.items() if not name.startswith(OF_ONE_DISTRIBUTION)}
    return {"samples": num, **kept, **data.final_reference(num)}


def judge_best(folder: Path, data: DataSet, args: argparse.Namespace, show: Callable[[str], None]) -> None:
    """Train --judges judges on the run's best models, as `judge` does, unless there are judges of these models."""
    saved = load_models(folder, None)
    if judges_fit(folder / JUDGES, saved_generator(saved)) and (folder / JUDGES_NUMBERS).is_file():
        command = f"python judges.py {shlex.quote(str(folder))} --judges {args.judges} --overwrite trains others"
        show(f"{folder / JUDGES} is kept: its judges were trained on {saved.path.name} as it is ({command})")
        return
    judge(folder, saved, data, Judging(args.judges, args.seed), show)


def trained_judges(
    judging: Judging, saved: SavedModels, generator: Generator, data: DataSet, show: Callable[[str], None]
) -> Judges:
    """The judges, without a β; raises UserError where the run's own D is asked for and was never trained."""
    if not judging.judges:
        judges = own_discriminator(saved, generator.device)
        if judges is None:
            raise UserError(f"--judges 0: the discriminator in {saved.path} was never trained")
        return judges
    models = []
    for number in range(judging.judges):
        with tqdm(total=MOST_UPDATES, desc=f"judge {number + 1}", unit="update", disable=not sys.stderr.isatty()) as bar:

            def advance(update: int, loss: float, bar: tqdm = bar, name: int = number + 1) -> None:
                bar.update(update - bar.n)
                bar.set_postfix(loss=f"{loss:.4f}")
                if bar.disable and update % SHOWN_EVERY == 0:
                    show(f"judge {name}: {update} updates so far, cross-entropy {loss:.4f}")

            model, updates, loss = train_judge(generator, data, number, judging.seed, advance)
        models.append(model)
        show(f"judge {number + 1}: {updates} updates, cross-entropy on validation sequences {loss:.4f} (guessing: 0.6931)")
    return Judges(models, data.seq_len, end_token(saved.args))


@torch.no_grad()
def measure(judges: Judges, generator: Generator, data: DataSet, judging: Judging, num_test: int) -> dict[str, Any]:
    """Choose β on validation sequences, and say on test sequences and other samples what the judges know beyond G."""
    for_beta, for_test = (
        judges.scores(generator.sample(judging.samples, data.seq_len, stream(judging.seed, f"samples for {use}")))
        for use in ("beta", "test")
    )
    judges.beta = choose_beta(judges.scores(data.valid), for_beta)
    held_out = data.final_held_out(num_test)
    real = judges.scores(held_out)
    known, error = knowledge(real, for_test, judges.beta)
    counted = generator.counted(held_out).sum(dim=1)
    nll_test, _ = ratio_and_error(sequence_nll(generator, held_out), counted)
    per_token = counted.double().mean().item()
    log_z, log_z_error = log_normaliser(for_test, judges.beta)
    groups = for_test[: len(for_test) // CANDIDATES * CANDIDATES].view(-1, CANDIDATES)
    return {
        "judges": len(judges.models),
        "beta": judges.beta,
        "nll_test": nll_test,
        "residual_nll_test": nll_test - known / per_token,
        **with_errors({"gain_per_token": (known / per_token, error / per_token), "knowledge": (known, error)}),
        "log_z_error": log_z_error,
        "auc": auc(real, for_test),
        "effective_candidates": effective_candidates(groups, judges.beta),
        "resampled": resampled_measures(generator, judges, data, judging, log_z, held_out, num_test),
    }


def report(numbers: dict[str, Any], show: Callable[[str], None]) -> None:
    """Say what was measured."""
    gain, known = (
        f"{numbers[name]:.4f}" + (f" ± {numbers[f'{name}_error']:.4f}" if f"{name}_error" in numbers else "")
        for name in ("gain_per_token", "knowledge")
    )
    show(f"β {numbers['beta']:g}, chosen on validation sequences; AUC on test sequences {numbers['auc']:.3f}")
    show(f"NLL_test of G {numbers['nll_test']:.4f}; of the residual model {numbers['residual_nll_test']:.4f}, lower by {gain}")
    show(f"a test sequence is likelier by {known} nats under the residual model than under G")
    if numbers["log_z_error"] > 2 * MOST_ERROR:  # of other samples than those that chose β
        show(f"warning: few samples decide Z (log Z ± {numbers['log_z_error']:.2f}): both gains may be wrong; more --samples help")
    effective = f"{numbers['effective_candidates']:.1f} of {CANDIDATES}"
    show(f"effective candidates: {effective} ({CANDIDATES}: all equally likely to be kept, 1: one outweighs the rest)")
