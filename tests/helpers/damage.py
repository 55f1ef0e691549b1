"""Folders of runs with random damage to their files, and what report.py says of them."""

import contextlib
import copy
import io
import json
import math
import random
import warnings
from pathlib import Path

import report
from helpers.cli import call
from helpers.fake_runs import ARGS, evaluation

DEEP = [0]
for _ in range(900):
    DEEP = [DEEP]
VALUES = (
    *(10**400, -(10**400), 10**4000, 1.7e308, -1.7e308, 1e160, 5e-324, math.inf, -math.inf, math.nan, 2**31, 2**63, -1, 0, 0.5),
    *(True, None, "", "text", "\ud800", "$\\x$", "a\nb", "1", [], [1], [[1, 2]], {}, {"a": 1}, DEEP),
)
MEASURES = dict(entropy_g=6.0, kl_g_oracle=3.0, kl_oracle_g=2.5, jsd=0.4, nll_valid=8.0)


def sound_run(seed: int) -> dict[str, list]:
    """The objects in each file of a run, as this program writes them."""
    rows = [evaluation(step, 10.3 - step / 300 + seed / 10, 8.5 - step / 400, **MEASURES) for step in (0, 10, 120, 130, 200)]
    final = {"step": 200, "samples": 9, "nll_oracle": 8.8 + seed / 10, "nll_test": 8.1, **MEASURES}
    auc = {"recurrent": {"auc": 0.6, "sd": 0.01, "seeds": [0.6]}, "features": {"auc": 0.7, "sd": None, "seeds": [0.7]}}
    settings = {**ARGS, "pretrain_g_epochs": 120, "total_epochs": 80, "seed": seed, "oracle_params": None, "start_from": None}
    return {
        "config.json": [{"args": {**settings, "d_filters": [[1, 4]]}, "versions": {"torch": "2"}}],
        "metrics.jsonl": rows,
        "final.json": [final],
        "two_sample.json": [{"last": {**auc, "floor": auc}}],
        "judges.json": [{"which": "best.pt", "beta": 1.0, "resampled": dict(final)}],
    }


def damage_value(value: object, rng: random.Random) -> object:
    """The value with one of its parts, at any depth, replaced or removed."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    changed = copy.copy(value)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.15:
        del changed[key]
    else:
        changed[key] = damage_value(value[key], rng)
    return changed


def damage_text(text: bytes, rng: random.Random) -> bytes:
    """The text cut off, or with some of its bytes replaced, doubled or removed."""
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.choice((0, 1, 3, 50)))
    middle = rng.choice((b"", bytes([rng.randrange(256)]), b"\n", b"[" * 100_000, b"9" * 400, 2 * text[start:end]))
    return text[:start] + middle + (text[end:] if rng.random() < 0.8 else b"")


def write_damaged(folder: Path, seed: int, rng: random.Random) -> None:
    """A run's folder, with up to three of its values or files damaged."""
    folder.mkdir()
    files = sound_run(seed)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        name = rng.choice(list(files))
        files[name] = damage_value(files[name], rng)
        if not isinstance(files[name], list):
            files[name] = [files[name]]
    for name, objects in files.items():
        text = "".join(json.dumps(each) + "\n" for each in objects).encode()
        (folder / name).write_bytes(damage_text(text, rng) if rng.random() < 0.03 else text)
    if rng.random() < 0.05:
        (folder / rng.choice(list(files))).unlink()


def random_flags(rng: random.Random, curves: float) -> list[str]:
    """Flags of report.py; --curves with this probability, as drawing takes a third of a second."""
    flags = rng.choice((["r-1", "r-2", "r-3"], ["r-*"], ["MLE=r-1", "SeqGAN=r-[23]"], ["MLE=r-*", "MLE=r-1", "b=r-2"]))
    for flag in ("--final", "--resampled", "--json"):
        if rng.random() < 0.4:
            flags = [*flags, flag]
    for words in (["--authors_log", "logs"], ["--table", rng.choice(list(report.TABLES))]):
        if rng.random() < 0.2:
            flags = [*flags, *words]
    if "SeqGAN=r-[23]" in flags:
        flags = [*flags, *rng.choice(([], ["--early_stopped", "MLE"], ["--ttest", "SeqGAN", "SeqGAN"]))]
    return [*flags, "--curves", "c.png"] if rng.random() < curves else flags


def complaint(folder: Path, rng: random.Random, curves: float) -> str | None:
    """Report on three damaged runs in an empty folder, the current one; returns what is wrong with its answer, or None."""
    for seed in (1, 2, 3):
        write_damaged(folder / f"r-{seed}", seed, rng)
    flags = random_flags(rng, curves)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        status = call(report.main, *flags)
    said = err.getvalue()
    right = (status == 0 and not said) or (status == 2 and said.startswith("error: ") and said.count("\n") == 1)
    return None if right else f"{flags}: exit status {status}, {said!r}"
