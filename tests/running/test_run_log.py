"""What a run leaves: lines and curves that are complete, and what TensorBoard's page of the evaluations opens with."""

import json

import pytest
import torch
from helpers.cli import folders, json_lines, run, scalars
from helpers.whole_run import EPOCHS, WHOLE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from running.run_log import chart

PRETRAINED, STEPS = EPOCHS["pretrain_g"], EPOCHS["pretrain_g"] + EPOCHS["adversarial"]  # epochs of G
EVALUATED = sorted({*range(0, PRETRAINED, 7), PRETRAINED, *range(0, STEPS, 7), STEPS})


def test_a_run_leaves_the_files_that_the_readme_names(finished):
    names = {p.name for p in (finished / "train").iterdir()}
    assert {"config.json", "final.json", "last.pt", "metrics.jsonl", "training.jsonl"} <= names
    assert not [name for name in names if "partial" in name]
    rows = json_lines(finished / "train/metrics.jsonl")
    assert [row["step"] for row in rows] == EVALUATED
    for row in rows:
        assert {"phase", "epoch", "step", "nll_oracle", "nll_test"} <= row.keys()
        late = row["step"] > PRETRAINED
        assert row["phase"] == ("adversarial" if late else "pretrain_g")
        assert row["epoch"] == row["step"] - (PRETRAINED if late else 0)
    assert {"d_held_out_accuracy_real", "d_held_out_accuracy_fake", "d_held_out_auc"} <= rows[-1].keys()
    config = json.loads((finished / "train/config.json").read_text())
    assert config["args"]["pretrain_g_epochs"] == PRETRAINED
    assert config["versions"]["torch"] == torch.__version__
    final = json.loads((finished / "train/final.json").read_text())
    assert final["samples"] == 50
    assert final["step"] == STEPS


def test_tensorboard_gets_every_curve_once(finished):
    evaluation, training = scalars(finished / "eval"), scalars(finished / "train")
    assert set(evaluation) == {
        "nll",
        "nll_test",
        "nll_valid",
        "oracle/entropy",
        "oracle/kl_g_oracle",
        "oracle/kl_oracle_g",
        "oracle/jsd",
        "samples/entropy_g",
        "samples/distinct_tokens",
    }
    rows = json_lines(finished / "train/metrics.jsonl")
    assert [step for step, _ in evaluation["nll"]] == [row["step"] for row in rows]
    assert [value for _, value in evaluation["nll"]] == pytest.approx([row["nll_oracle"] for row in rows])
    assert [value for _, value in evaluation["nll_test"]] == pytest.approx([row["nll_test"] for row in rows])
    counted = {tag: [step for step, _ in points] for tag, points in training.items()}
    for tag in ("pretrain_g/loss", "pretrain_g/grad_norm", "pretrain_g/clipped_share"):
        assert counted[tag] == list(range(1, PRETRAINED + 1))
    for tag in (
        "d_loss",
        "d_accuracy_real",
        "d_accuracy_fake",
        "d_held_out_accuracy_real",
        "d_held_out_accuracy_fake",
        "d_held_out_auc",
    ):
        assert counted[f"pretrain_d/{tag}"] == list(range(1, EPOCHS["pretrain_d"] + 1))
    for tag in ("g_loss", "reward", "grad_norm", "clipped_share", "d_loss", "d_accuracy_real", "d_accuracy_fake"):
        assert counted[f"adversarial/{tag}"] == list(range(PRETRAINED + 1, STEPS + 1))
    positions = sorted(tag for tag in counted if tag.startswith("adversarial/reward_at/"))
    assert positions == [f"adversarial/reward_at/{t:02d}" for t in range(1, 6)]
    assert counted["adversarial/d_held_out_auc"] == [step for step in EVALUATED if step > PRETRAINED]


def test_curves_of_two_runs_coincide_until_their_settings_differ(finished, tmp_path):
    """60 + 0 and 40 + 20 epochs: one axis, and equal numbers up to epoch 40."""
    assert run(*WHOLE, "--pretrain_g_epochs", str(STEPS), "--total_epochs", "0", *folders(tmp_path)) == 0
    pure = {row["step"]: row for row in json_lines(tmp_path / "train/metrics.jsonl")}
    both = {row["step"]: row for row in json_lines(finished / "train/metrics.jsonl")}
    shared = pure.keys() & both.keys()
    assert [sum(step < PRETRAINED for step in shared), sum(step > PRETRAINED for step in shared)] == [6, 4]
    for step in shared:
        assert (pure[step] == both[step]) == (step <= PRETRAINED)
    assert "pretrain_d/d_loss" not in scalars(tmp_path / "train")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The evaluation folder of a short run."""
    folder = tmp_path_factory.mktemp("evaluated")
    short = "--pretrain_g_epochs 2 --pretrain_d_epochs 1 --total_epochs 1 --eval_every 1".split()
    assert run(*short, *folders(folder)) == 0
    return folder / "eval"


def test_the_page_opens_with_both_nlls(evaluated):
    """TensorBoard sorts groups by name: a measure in a group before `nll` would push the answer down."""
    tags = sorted(scalars(evaluated))
    assert tags[:3] == ["nll", "nll_test", "nll_valid"]
    assert {tag.partition("/")[0] for tag in tags[3:]} == {"oracle", "samples"}


def test_measures_of_real_data_have_a_group_of_their_own():
    assert chart("real_bleu4") == "real/bleu4"
    assert chart("bleu4") == "samples/bleu4"


def test_one_chart_holds_both_nlls_and_the_oracles_entropy(evaluated):
    events = EventAccumulator(str(evaluated)).Reload()
    layout = layout_pb2.Layout.FromString(events.Tensors(metadata.CONFIG_SUMMARY_TAG)[0].tensor_proto.string_val[0])
    (only,) = [each for category in layout.category for each in category.chart]
    assert list(only.multiline.tag) == ["nll", "nll_test", "oracle/entropy"]
    assert set(only.multiline.tag) <= set(scalars(evaluated))
