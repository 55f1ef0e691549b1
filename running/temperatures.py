"""The generator at other temperatures: a control that needs no training, as it moves NLL_oracle and H(G) as far as a reward can.

Loads torch, and is loaded by report.py only for --temperatures.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch

from data_loader import make_data
from data_set import DataSet
from fast import native
from generator import Generator
from running.checkpoint import load_run, must_fit
from running.run_folder import LAST
from running.trainer import evaluation_at_end
from support.device import choose_device
from support.threads import set_up
from train_state import unset_generator


@torch.no_grad()
def tempered(generator: Generator, temperature: float) -> Generator:
    """A generator whose logits are divided by a temperature, so that its likelihoods are those of what it draws."""
    result = copy.deepcopy(generator)
    result.output.weight /= temperature
    result.output.bias /= temperature
    return result


def records_at(folder: Path, temperatures: list[float]) -> list[dict[str, Any]]:
    """The evaluation at the end of a run's last generator at each temperature, on the same random numbers as its final.json.

    Raises:
        UserError: the run's checkpoint is missing or broken, or its data are.
    """
    set_up(num_threads=0)
    checkpoint = load_run(folder / LAST)
    args = argparse.Namespace(**checkpoint["args"])
    device = choose_device("auto")
    native.set_up_like(args, device)
    with must_fit():
        data = make_data(args, device, checkpoint["data"])
        generator = unset_generator(args)
        generator.load_state_dict(checkpoint["state"]["generator"])
    generator.to(device)
    done = checkpoint["state"]["counts"]["epochs_done"]
    step = done["pretrain_g"] + done["adversarial"]
    return [{"step": step, **measured(tempered(generator, value), data, args)} for value in temperatures]


def measured(generator: Generator, data: DataSet, args: argparse.Namespace) -> dict[str, float]:
    """The numbers of the evaluation at the end, and NLL_valid, by which a temperature may be chosen."""
    values = evaluation_at_end(generator, data, args)
    return {**values, "nll_valid": data.nll_valid(generator)} if data.valid is not None else values
