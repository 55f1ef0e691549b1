"""Judges for a finished run: `python judges.py logs/train/RUN`, then `python sample.py logs/train/RUN --resample 8`.

Trains discriminators on the run's generator (residual/judges.py), chooses β on validation sequences, and writes both to judges.pt
in the run's folder. Prints, and writes to judges.json, what they know about real sequences beyond the generator: NLL_test of the
generator alone and of the residual model, in nats per token.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import torch
from tqdm import tqdm

from data_loader import make_data
from data_set import DataSet
from generator import Generator
from metrics import auc, ratio_and_error, sequence_nll
from residual.judges import MOST_UPDATES, Judges, train_judge
from residual.weights import choose_beta, effective_candidates, knowledge
from running.checkpoint import SavedModels, load_models, load_run, must_fit
from running.judges_file import end_token, own_discriminator, save_judges
from running.run_folder import JUDGES, JUDGES_NUMBERS, LAST, must_be_writable
from support.command_line import LARGEST_SEED, Parser, whole
from support.device import choose_device
from support.errors import UserError, exit_with_one_line
from support.files import write_json
from support.random_streams import stream
from support.threads import set_up
from train_state import make_generator

CANDIDATES = 8  # for which the effective ones are told


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Train judges on a run's generator, for sample.py --resample.", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder (its --log_dir)")
    parser.add_argument(
        "--judges", type=whole(0, 64), default=2, metavar="M", help="how many; 0 takes the run's own D (default: %(default)s)"
    )
    parser.add_argument("--which", choices=("best", "last"), default=None, help="the run's models, as for sample.py")
    parser.add_argument(
        "--samples", type=whole(100), default=20_000, metavar="S", help="sequences of G that estimate Z (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), default=0, metavar="N", help="seed (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=whole(0, 1024), default=0, help="CPU threads; 0 leaves the choice to torch")
    parser.add_argument("--overwrite", action="store_true", help="replace the judges that the run has")
    return parser


def trained_judges(args: argparse.Namespace, saved: SavedModels, generator: Generator, data: DataSet) -> Judges:
    """The judges, without a β; raises UserError where the run's own D is asked for and was never trained."""
    if not args.judges:
        judges = own_discriminator(saved, generator.device)
        if judges is None:
            raise UserError(f"--judges 0: the discriminator in {saved.path} was never trained")
        return judges
    models = []
    for number in range(args.judges):
        with tqdm(total=MOST_UPDATES, desc=f"judge {number + 1}", unit="update", disable=not sys.stderr.isatty()) as bar:

            def show(update: int, loss: float, bar: tqdm = bar) -> None:
                bar.update(update - bar.n)
                bar.set_postfix(loss=f"{loss:.4f}")

            model, updates, loss = train_judge(generator, data, number, args.seed, show)
        models.append(model)
        print(f"judge {number + 1}: {updates} updates, cross-entropy on validation sequences {loss:.4f} (guessing: 0.6931)")
    return Judges(models, data.seq_len, end_token(saved.args))


def measure(judges: Judges, generator: Generator, data: DataSet, args: argparse.Namespace, num_test: int) -> dict[str, float]:
    """Choose β on validation sequences, and say on test sequences and other samples what the judges know beyond G."""
    samples = [generator.sample(args.samples, data.seq_len, stream(args.seed, f"samples for {use}")) for use in ("beta", "test")]
    for_beta, for_test = (judges.scores(part) for part in samples)
    judges.beta = choose_beta(judges.scores(data.valid), for_beta)
    held_out = data.final_held_out(num_test)
    real = judges.scores(held_out)
    known, error = knowledge(real, for_test, judges.beta)
    counted = generator.counted(held_out).sum(dim=1)
    nll_test, _ = ratio_and_error(sequence_nll(generator, held_out), counted)
    per_token = counted.double().mean().item()
    groups = for_test[: len(for_test) // CANDIDATES * CANDIDATES].view(-1, CANDIDATES)
    return {
        "judges": len(judges.models),
        "beta": judges.beta,
        "nll_test": nll_test,
        "residual_nll_test": nll_test - known / per_token,
        "knowledge": known,
        "knowledge_error": error,
        "auc": auc(real, for_test),
        "effective_candidates": effective_candidates(groups, judges.beta),
    }


def report(numbers: dict[str, float], tokens: float) -> str:
    """What was measured, for the screen."""
    return "\n".join(
        [
            f"β {numbers['beta']:g}, chosen on validation sequences; AUC on test sequences {numbers['auc']:.3f}",
            f"NLL_test of G:                  {numbers['nll_test']:.4f}",
            f"NLL_test of the residual model: {numbers['residual_nll_test']:.4f} ± {numbers['knowledge_error'] / tokens:.4f}",
            f"D knows {numbers['knowledge']:.3f} ± {numbers['knowledge_error']:.3f} nats of a sequence beyond G; of {CANDIDATES} "
            f"candidates, {numbers['effective_candidates']:.1f} are effective",
        ]
    )


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    device = choose_device(args.device)
    if not args.run.is_dir():
        raise UserError(f"no run at {args.run}: judges need its folder")
    path = args.run / JUDGES
    if path.exists() and not args.overwrite:
        raise UserError(f"{path} exists: --overwrite replaces it")
    must_be_writable(args.run)
    set_up(args.threads)
    saved = load_models(args.run, args.which)
    checkpoint = load_run(args.run / LAST)
    with must_fit():
        data = make_data(saved.args, device, checkpoint["data"])
        generator = make_generator(saved.args)
        generator.load_state_dict(saved.generator)
    generator.to(device)
    if data.valid is None:
        raise UserError(f"{args.run}: there are no validation sequences to stop the judges by")
    print(f"judging {saved.about}")
    judges = trained_judges(args, saved, generator, data)
    with torch.no_grad():
        numbers = measure(judges, generator, data, args, saved.args.final_eval_samples)
    save_judges(path, judges, generator, saved.path.name)
    write_json(args.run / JUDGES_NUMBERS, {"which": saved.path.name, **numbers})
    print(report(numbers, numbers["knowledge"] / max(1e-12, numbers["nll_test"] - numbers["residual_nll_test"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
