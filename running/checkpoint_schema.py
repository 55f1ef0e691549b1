"""What the files of a run must hold, walked before anything of a file is used.

Settings must be such as the command line takes. The models' sizes follow from them, so that the weights, and the moments that the
optimisers keep of each weight, are compared with models that take no memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from discriminator import Discriminator
from running.flags import FLAGS, PRESETS, preset_settings
from support import schema
from support.command_line import LARGEST, Flag, boolean, boolean_or_auto
from train_state import PHASES, STREAMS, unset_generator

FILTERS = schema.list_of(schema.list_of(schema.whole(1), 2, 2), longest=1000, shortest=1)
TYPES: dict[Any, schema.Check] = {boolean: schema.truth, boolean_or_auto: schema.truth, str: schema.text_of(4096)}
MAY_BE_NONE = {name for preset in PRESETS for name, value in preset_settings(preset).items() if value is None}
COUNT = schema.whole(0, 2**53)
EPOCHS = schema.whole(0, LARGEST)
NUMBERS = schema.mapping(schema.number())
LENGTHS = schema.mapping(schema.whole())
BY_PHASE = schema.record(dict.fromkeys(PHASES, COUNT), closed=True)
WHERE = schema.record({"phase": schema.one_of(PHASES), "step": COUNT, "epoch": EPOCHS}, closed=True)
LATEST = schema.record({"nll_valid": schema.number(), "step": COUNT}, closed=True)


def _written(value: Any, place: str) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, list):
        FILTERS(value, place)
        return ",".join(f"{width}x{number}" for width, number in value)
    schema.number()(value, place)
    return repr(value)


def _setting(flag: Flag) -> schema.Check:
    """What the command line would take as a value of this flag."""

    def by_its_parser(value: Any, place: str) -> None:
        try:
            fits = flag.type(_written(value, place)) == value
        except argparse.ArgumentTypeError:
            fits = False
        if not fits:
            raise schema.UnfitError(f"{place} is no value of --{flag.name}")

    inner = schema.one_of(flag.type) if isinstance(flag.type, tuple) else TYPES.get(flag.type, by_its_parser)
    return schema.optional(inner) if flag.name in MAY_BE_NONE else inner


SETTINGS = schema.record({flag.name: _setting(flag) for flag in FLAGS}, closed=True)


def _adam_of(shapes: list[tuple[int, ...]]) -> schema.Check:
    """The state of an Adam for weights of these shapes: of all of them, or of none before its first step."""

    def moments(shape: tuple[int, ...]) -> schema.Check:
        parts = {"step": schema.tensor(torch.float32, (), low=0), "exp_avg": schema.tensor(torch.float32, shape)}
        return schema.record({**parts, "exp_avg_sq": schema.tensor(torch.float32, shape, low=0)}, closed=True)

    of_all = schema.record({index: moments(shape) for index, shape in enumerate(shapes)}, closed=True)

    def in_order(value: Any, place: str) -> None:
        # Another order would give a weight the moments of another one, and the fused Adam writes past the end of shorter ones.
        if type(value) is not list or any(type(index) is not int for index in value) or value != list(range(len(shapes))):
            raise schema.UnfitError(f"{place} is not the list of weights")

    groups = schema.list_of(schema.record({"params": in_order}), longest=1, shortest=1)

    def check(value: Any, place: str) -> None:
        schema.record({"state": schema.anything, "param_groups": groups})(value, place)
        if value["state"] != {}:
            of_all(value["state"], f"{place}.state")

    return check


def _model(make: Callable[[], torch.nn.Module]) -> tuple[schema.Check, schema.Check]:
    """Checks of a model's weights and of an Adam's state for them."""
    with schema.without_memory():
        model = make()
    return schema.tensors_like(model.state_dict()), _adam_of([tuple(p.shape) for p in model.parameters() if p.requires_grad])


def _models(args: argparse.Namespace) -> dict[str, schema.Check]:
    """The parts of a state that have the sizes of its models."""
    of_g, adam_of_g = _model(lambda: unset_generator(args))
    of_d, adam_of_d = _model(lambda: Discriminator(args.vocab_size, args.d_emb_dim, args.d_filters))
    return {
        **{"generator": of_g, "policy": of_g, "discriminator": of_d},
        **{"optimizer_mle": adam_of_g, "optimizer_policy": adam_of_g, "optimizer_discriminator": adam_of_d},
    }


def _best(parts: dict[str, schema.Check]) -> schema.Check:
    """The best evaluation as a checkpoint holds it: without models before the first one; given the checks of `_models`."""
    shared = {"nll_valid": schema.number(), "waited": COUNT, "ended_early": schema.truth}
    models = schema.record({"generator": parts["generator"]}, {"discriminator": parts["discriminator"]}, closed=True)
    nothing = schema.record({}, closed=True)
    before = schema.record({**shared, "where": nothing, "models": nothing, "latest": schema.mapping(schema.number())}, closed=True)
    after = schema.record({**shared, "where": WHERE, "models": models, "latest": LATEST}, closed=True)

    def check(value: Any, place: str) -> None:
        models_there = value.get("models") if isinstance(value, dict) else None
        (before if isinstance(models_there, dict) and not models_there else after)(value, place)

    return check


def check_settings(value: Any) -> argparse.Namespace:
    """The settings of a file as a namespace; raises UnfitError."""
    SETTINGS(value, "args")
    return argparse.Namespace(**value)


def check_run(payload: dict[str, Any]) -> None:
    """Check last.pt; raises UnfitError."""
    args = check_settings(payload.get("args"))
    models = _models(args)
    epochs = schema.record(dict.fromkeys(PHASES, EPOCHS), closed=True)
    counts = schema.record({"epochs_done": epochs, "clipped": BY_PHASE, "steps": BY_PHASE}, closed=True)
    streams = schema.record(dict.fromkeys(STREAMS, schema.random_stream), closed=True)
    state = schema.record(
        {**models, "counts": counts, "streams": streams, "seconds": schema.number(low=0)}, {"reference": models["generator"]}
    )
    by_folder = dict.fromkeys(("log", "eval"), LENGTHS)
    schema.record(
        {
            "state": state,
            "data": schema.mapping(schema.anything),
            "marks": schema.record(by_folder, closed=True),
            "folders": schema.record({"log": schema.text, "eval": schema.text}, closed=True),
            "last_evaluation": NUMBERS,
            "watch": schema.record(
                {"lowest": schema.optional(schema.number()), "warned": schema.truth, "without_reward": EPOCHS}, closed=True
            ),
            "best": _best(models),
            "begun": schema.truth,
            "token": schema.text_of(100),
        },
    )(payload, "")


def check_best(payload: dict[str, Any]) -> None:
    """Check best.pt; raises UnfitError."""
    about = ("format", "kind", "args", "data")
    models = _models(check_settings(payload.get("args")))
    _best(models)({name: value for name, value in payload.items() if name not in about}, "")
    schema.record({"data": schema.mapping(schema.anything)})(payload, "")
