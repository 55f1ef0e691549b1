"""Runs the phases of a training: counts, logs, evaluates and saves, the same way for all phases.

Shapes: M generated sequences, T tokens each.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from data_set import DataSet
from generator import Generator
from metrics import held_out_scores
from rewards import has_vanished, trains_discriminator
from running.best import Best
from running.checkpoint import save_checkpoint
from running.collapse import CollapseWatch
from running.profiling import profiled
from running.run_folder import BEST, LAST, OF_THE_END, PREVIOUS, SAMPLES
from running.run_log import RunLog
from support import world
from support.errors import UserError
from support.random_streams import stream
from support.torchrun import is_first
from train import Metrics, phases
from train_state import TrainState

SAMPLE_LINES = 5  # sequences shown in each evaluation's text sample


def evaluate(
    generator: Generator, data: DataSet, held_out: Tensor, num: int, rng: torch.Generator
) -> tuple[dict[str, float], Tensor]:
    """Measure the generator on `num` freshly generated sequences and on held-out ones (M, T); changes no weight.

    Returns:
        The numbers, NLLs in nats per token with their standard errors, and the generated sequences (num, T).
    """
    samples = generator.sample(num, data.seq_len, rng)
    return data.measure(generator, samples, held_out), samples


def final_evaluation(state: TrainState, data: DataSet, args: argparse.Namespace) -> dict[str, float]:
    """The end result on `--final_eval_samples` sequences, with a held-out sample of its own where the data can give one."""
    return {"step": state.g_epochs, **evaluation_at_end(state.generator, data, args)}


def evaluation_at_end(generator: Generator, data: DataSet, args: argparse.Namespace) -> dict[str, float]:
    """The same of any generator."""
    num = args.final_eval_samples
    held_out = data.final_held_out(num)
    values, samples = evaluate(generator, data, held_out, num, stream(args.seed, "final evaluation"))
    values |= data.final_measures(generator, samples, held_out)
    return {"samples": num, **values, **data.final_reference(num)}


class Trainer:
    """Runs the phases in order, and counts, logs, evaluates and saves for all of them.

    Args:
        state: what training changes.
        data: the token source.
        args: the run's settings.
        log: open logs.
        last_evaluation: the numbers of the latest evaluation, for the screen.
        watch: notices a collapse of the generator.
        best: the best evaluation so far.

    Attributes:
        stop_requested: set it, and the training ends after the epoch under way.
        finished: the last epoch is done, and saved.
    """

    def __init__(
        self,
        state: TrainState,
        data: DataSet,
        args: argparse.Namespace,
        log: RunLog,
        last_evaluation: dict[str, float],
        watch: CollapseWatch,
        best: Best,
    ):
        self.state, self.data, self.args, self.log = state, data, args, log
        self.last_evaluation, self.watch, self.best = last_evaluation, watch, best
        self.stop_requested = False
        self.finished = False

    def begin(self, new: bool) -> None:
        """Evaluate a new run before its first epoch, and save.

        Raises:
            OSError: a file can't be written.
        """
        if new and self.args.evaluate:
            self._evaluate("pretrain_g")
        if is_first() and any(not self._complete(phase, number) for phase, _, number in phases(self.args)):
            for name in OF_THE_END:  # of an earlier end: the training goes on
                (Path(self.args.log_dir) / name).unlink(missing_ok=True)
        self._save_once()

    def _complete(self, phase: str, num_epochs: int) -> bool:
        return self.state.epochs_done[phase] >= num_epochs or (phase == "pretrain_g" and self.best.ended_early)

    def run(self) -> None:
        """Train to the end, or until `stop_requested` is set or nobody reads the lines any more. Saves in all cases.

        Raises:
            UserError: the loss is no longer finite.
            OSError: a file can't be written.
        """
        for phase, run_epoch, num_epochs in phases(self.args):
            if self._complete(phase, num_epochs):
                continue
            folder = Path(self.args.log_dir) / "profile" if self.args.profile and is_first() else None
            with profiled(folder, phase, self.state.generator.device) as epoch_done:
                for _ in self.log.epochs(phase, self.state.epochs_done[phase], num_epochs):
                    self._epoch(phase, run_epoch, num_epochs)
                    epoch_done()
                    if not world.together(not self.stop_requested and not self.log.reader_gone):
                        self.stop_requested |= not self.log.reader_gone  # on the other ranks, too
                        self._save_once()
                        return
                    if self._complete(phase, num_epochs):
                        break
        self.finished = True

    def _epoch(self, phase: str, run_epoch: Callable[..., Metrics], num_epochs: int) -> None:
        start = time.perf_counter()
        values = run_epoch(self.state, self.data, self.args)
        seconds = time.perf_counter() - start
        self.state.epochs_done[phase] += 1
        self.state.seconds += seconds
        epoch = self.state.epochs_done[phase]
        if "tokens" in values:
            values["tokens_per_second"] = values.pop("tokens") / seconds
        values["epochs_per_second"] = 1 / seconds
        for name in ("loss", "g_loss", "d_loss", "grad_norm"):
            if not math.isfinite(values.get(name, 0.0)):
                raise UserError(f"{name} is {values[name]} in {phase} epoch {epoch}: a lower learning rate may help")

        def due(every: int) -> bool:
            return phase != "pretrain_d" and (epoch == num_epochs or self.state.g_epochs % every == 0)

        if self.args.evaluate and due(self.args.eval_every):
            values |= self._evaluate(phase)
        self.log.training(phase, epoch, self.state.g_epochs, values)
        if "reward" in values and (warning := self.watch.rewarded(has_vanished(values["reward"], self.args))):
            self.log.line(warning)
        self._show(phase, epoch, num_epochs, values)
        if phase == "pretrain_g" and self.args.patience:
            self._choose_epoch(epoch == num_epochs)
        if self.data.writes_samples and due(self.args.sample_every):
            self._keep_samples()
        if self._complete(phase, num_epochs) or epoch % self.args.save_every == 0:
            self._save_once()

    def _choose_epoch(self, last: bool) -> None:
        """End maximum likelihood where NLL_valid has not fallen for long, and go on from G's best weights where it ends."""
        self.best.ended_early = not last and self.best.waited >= self.args.patience
        if self.best.models and (last or self.best.ended_early):
            self.best.restore_generator(self.state)
            where, value = self.best.where["step"], self.best.nll_valid
            self.log.line(f"G has its weights of epoch {where} again, where NLL_valid is lowest: {value:.4f}")
            self._evaluate("pretrain_g")  # so that the last evaluation is that of the weights that go on

    def _evaluate(self, phase: str) -> dict[str, float]:
        """Evaluate G into the logs; returns D's numbers on held-out and fresh sequences, where D is being trained."""
        rng = stream(
            self.args.seed, "evaluation", self.state.g_epochs
        )  # of its own: evaluating more often does not change the training
        values, samples = evaluate(self.state.generator, self.data, self.data.held_out, self.args.eval_samples, rng)
        if self.data.valid is not None:
            values["nll_valid"] = self.data.nll_valid(self.state.generator)
        d_scores = {}
        if phase == "adversarial" and trains_discriminator(self.args):
            d_scores = held_out_scores(self.state.discriminator, self.data.held_out, samples)
        step = self.state.g_epochs
        where = {"phase": phase, "epoch": self.state.epochs_done[phase], "step": step}
        self.log.evaluation(where, {**values, **self.data.reference}, d_scores, self.data.form.text(samples[:SAMPLE_LINES]))
        if "nll_valid" in values:
            self.best.look(values["nll_valid"], where, self.state)
        if phase != "adversarial":
            self.watch.before(values)
        elif warning := self.watch.look({**values, **self.data.reference}):
            self.log.line(warning)
            kept = f"best.pt keeps G of epoch {self.best.where['step']}; " if self.best.models else ""
            self.log.line(f"Ctrl-C stops the run, and saves; {kept}a smaller --policy_lr may help")
        if self.args.log_generation:
            self.log.token_image(samples[: self.args.batch_size], self.args.vocab_size, step)
        self.last_evaluation = values
        return d_scores

    def _keep_samples(self) -> None:
        """Samples as files in the run's folder, and as sounds and images in TensorBoard beside real sequences."""
        seed, step = self.args.seed, self.state.g_epochs
        samples = self.state.generator.sample(self.data.num_samples, self.data.seq_len, stream(seed, "songs", step))
        if not is_first():
            return
        self.data.keep_samples(samples, Path(self.args.log_dir) / SAMPLES, f"epoch_{step:04d}")
        self.log.media(self.data.media(samples, stream(seed, "songs beside real ones", step)), step)

    def keep_final_samples(self) -> None:
        """Samples of the best and of the last G as files in the run's folder, the same random numbers for both."""
        folder, rng_name = Path(self.args.log_dir) / SAMPLES, "final songs"
        generators = {"last": self.state.generator}
        if self.best.models:
            generators["best"] = self.best.generator(self.state)
        for name, generator in generators.items():
            samples = generator.sample(self.data.num_samples, self.data.seq_len, stream(self.args.seed, rng_name))
            if is_first():
                self.data.keep_samples(samples, folder, name)
        self.log.line(f"samples of {' and '.join(f'{name}.pt' for name in sorted(generators))} are in {folder}")

    def _show(self, phase: str, epoch: int, num_epochs: int, values: Metrics) -> None:
        now = {"nll": self.last_evaluation.get("nll_oracle"), "nll_test": self.last_evaluation.get("nll_test")}
        now |= {"BLEU-4": self.last_evaluation.get("bleu4"), "loss": values.get("loss"), "reward": values.get("reward")}
        if accuracies := [values[name] for name in ("d_accuracy_real", "d_accuracy_fake") if name in values]:
            now["D accuracy"] = sum(accuracies) / len(accuracies)
        now = {name: value for name, value in now.items() if value is not None}
        self.log.show(now)
        text = "  ".join(f"{name} {value:.4f}" for name, value in now.items())
        self.log.line_now_and_then(epoch, num_epochs, f"{phase:<11} {epoch:>5}/{num_epochs}  {text}")

    def _save_once(self) -> None:
        """Save, on one rank, what is the same on all."""
        weights = [*self.state.generator.parameters(), *self.state.discriminator.parameters()]
        world.must_be_alike(
            weights, "the weights of the processes differ: they need machines of one kind, and one version of torch"
        )
        if is_first():
            self.save()

    def save(self, begun: bool = True, token: str = "") -> None:
        """Write the complete state to `last.pt`, and before it the best models to `best.pt`.

        Args:
            begun: False for a run's first checkpoint, before it has any log: an earlier run's files may still lie in its folders.
                What `last.pt` held before is then not kept as `previous.pt`.
            token: of such a checkpoint, for `remove_run`.

        Raises:
            UserError: a weight, or a mean of gradients, is no longer finite; the last checkpoint is left as it was.
            OSError: the file can't be written.
        """
        weights = [p for model in (self.state.generator, self.state.discriminator) for p in model.parameters()]
        if not all(p.isfinite().all() for p in weights):
            raise UserError("the weights are no longer finite: a lower learning rate may help")
        means = [value for adam in self.state.optimizers.values() for part in adam.state.values() for value in part.values()]
        if not all(value.isfinite().all() for value in means):  # a weight whose mean square is infinite never changes again
            raise UserError("the means of the gradients are no longer finite: a lower learning rate may help")
        log_dir = Path(self.args.log_dir)
        if self.best.models and begun:
            best = {**self.best.state_dict(), "data": self.data.form_state(), "args": vars(self.args)}
            save_checkpoint(log_dir / BEST, {"kind": "best", **best})
        payload = {
            "args": vars(self.args),
            "state": self.state.state_dict(),
            "data": self.data.state_dict(),
            "last_evaluation": self.last_evaluation,
            "watch": self.watch.state_dict(),
            "best": self.best.state_dict(),
            "marks": self.log.marks(),
            "folders": {key: str(folder.resolve()) for key, folder in self.log.folders.items()},
            "begun": begun,
            "token": token,
        }
        save_checkpoint(log_dir / LAST, payload, previous=log_dir / PREVIOUS if begun else None)
