"""The benchmarks run, and their plain versions compute what the fast ones do."""

import argparse
import json
import sys

import pytest
import torch
from helpers.cli import ROOT
from helpers.processes import popen
from helpers.ranks import ranks

sys.path.append(str(ROOT / "benchmarks"))

import plain
import run as benchmarks
from scaling import SWEEPS, counted, settings, slope

from running.flags import preset_settings
from train_state import make_state


def test_a_part_is_timed_and_written_as_json(tmp_path, monkeypatch):
    flags = ["--preset", "original", "--repeats", "1", "--threads", "1", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["run.py", "d_update", "mle_update", *flags])
    monkeypatch.setattr("data_loader.ENTROPY_SEQUENCES", 100)  # of which nothing is timed
    assert benchmarks.main() == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["part"] for row in written["rows"]] == ["d_update", "mle_update"]
    for row in written["rows"]:
        assert row["speedup"] == pytest.approx(row["plain_s"] / row["fast_s"])
        assert row["over_products"] == pytest.approx(row["fast_s"] / row["products_s"])
    assert written["torch"] == torch.__version__ and written["peak_memory_mib"] > 100


def test_an_epoch_of_two_ranks_is_timed_with_its_exchanges(tmp_path):
    flags = ["--presets", "smoke", "--rounds", "1", "--threads", "1"]
    with ranks(2, str(ROOT / "benchmarks/ranks.py"), *flags, cwd=tmp_path) as started:
        (status, text, error), other = started.end()
    assert (status, error, other) == (0, "", (0, "", ""))
    row = [cell.strip() for cell in text.splitlines()[-1].split("|")]
    assert row[1:4] == ["`smoke`", "2", "1"] and int(row[5]) > 10 and 0 < int(row[6].removesuffix("%")) < 100


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["run.py", "everything"], "no part 'everything'"),
        (["run.py", "--device", "cuda:99"], "--device cuda:99"),
        (["scaling.py", "--device", "abacus"], "choose auto, cpu, cuda or cuda:N"),
    ],
)
def test_bad_input_ends_with_one_line(command, words):
    process = popen(f"benchmarks/{command[0]}", *command[1:], cwd=ROOT)
    _, error = process.communicate()
    assert process.returncode == 2
    assert error.count("\n") == 1 and words in error


def test_the_plain_discriminator_gives_the_same_scores():
    state = make_state(argparse.Namespace(**preset_settings("smoke")), torch.device("cpu"))
    tokens = torch.randint(50, (7, 8), generator=torch.Generator().manual_seed(0))
    conv = plain.ConvDiscriminator(state.discriminator)
    torch.testing.assert_close(conv.prob_real(tokens), state.discriminator.prob_real(tokens))


def test_the_counted_work_has_the_exponents_of_its_formula():
    exponents = {name: slope(sizes, [counted(settings({name: size})) for size in sizes]) for name, sizes in SWEEPS.items()}
    assert exponents["rollout_num"] == pytest.approx(1) and exponents["batch_size"] == pytest.approx(1)
    assert 1.9 < exponents["seq_len"] < 2.1 and 0.8 < exponents["vocab_size"] <= 1
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_one_point_of_the_sweep_says_time_and_memory():
    flags = ["--point", '{"seq_len": 5, "vocab_size": 100}', "--repeats", "1", "--threads", "1"]
    process = popen("benchmarks/scaling.py", *flags, cwd=ROOT)
    output, error = process.communicate()
    assert process.returncode == 0, error
    point = json.loads(output)
    assert point["seconds"] > 0 and point["mib"] > 100
