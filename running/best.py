"""The best models of a run: those of the evaluation with the lowest NLL_valid, kept beside the last ones.

Only validation sequences decide. Held-out test sequences are measured in the same evaluations, and choose nothing.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from data_set import DataSet
from generator import Generator
from train_state import TrainState


@dataclass
class Best:
    """The evaluation with the lowest NLL_valid so far, and the models at that moment.

    Attributes:
        nll_valid: the lowest, in nats per token; infinite before the first evaluation.
        where: its phase, its epoch in that phase and its step.
        models: state dictionaries of "generator" and, where it was trained by then, "discriminator".
        waited: evaluations since.
        latest: NLL_valid and step of the newest evaluation.
        ended_early: whether it ended maximum likelihood before its last epoch.
    """

    nll_valid: float = math.inf
    where: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    waited: int = 0
    latest: dict[str, float] = field(default_factory=dict)
    ended_early: bool = False

    def look(self, nll_valid: float, where: dict[str, Any], state: TrainState) -> None:
        """Take an evaluation into account; an equal NLL_valid is no improvement, and one that is not a number neither."""
        if self.latest.get("step") != where["step"]:  # a run that starts from another evaluates the same models again
            self.waited += 1
        self.latest = {"nll_valid": nll_valid, "step": where["step"]}
        if nll_valid < self.nll_valid:
            self.nll_valid, self.where, self.waited = nll_valid, where, 0
            models: dict[str, torch.nn.Module] = {"generator": state.generator}
            if state.optimizers["discriminator"].state:
                models["discriminator"] = state.discriminator
            self.models = {
                name: {key: value.detach().clone() for key, value in model.state_dict().items()} for name, model in models.items()
            }

    def measure_again(self, state: TrainState, data: DataSet) -> None:
        """Measure the best models on these validation sequences: a run that starts from another may have other ones."""
        if self.models and data.valid is not None:
            self.nll_valid = data.nll_valid(self.generator(state))

    def generator(self, state: TrainState) -> Generator:
        """A generator with the best weights."""
        generator = copy.deepcopy(state.generator)
        generator.load_state_dict(self.models["generator"])
        return generator

    def restore_generator(self, state: TrainState) -> None:
        """Give G its best weights back."""
        state.generator.load_state_dict(self.models["generator"])
        self.latest = {"nll_valid": self.nll_valid, "step": state.g_epochs}

    def summary(self) -> str:
        """One line on the best epoch, and how far the last one is from it."""
        place = f"epoch {self.where['step']} of G ({self.where['phase']})"
        line = f"best.pt: {place}, NLL_valid {self.nll_valid:.4f}; last.pt: {self.latest['nll_valid']:.4f}"
        worse = self.where["step"] == 0 < self.latest["step"]
        return f"{line}; no epoch lowered NLL_valid: is there enough data?" if worse else line

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: what `Best(**...)` takes."""
        return dict(vars(self))
