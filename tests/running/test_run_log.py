"""What a run leaves: lines and curves that are complete, and what TensorBoard's page of the evaluations opens with."""

import errno
import io
import json
import resource
import sys
import threading

import pytest
import torch
from helpers.cli import folders, json_lines, run, scalars
from helpers.whole_run import EPOCHS, WHOLE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from data_set import Media
from running.run_log import RunLog, chart

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
    assert config["versions"]["draws"].startswith(("native code (", "torch (there is no C compiler"))
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
    for tag in ("d_loss", "d_accuracy_real", "d_accuracy_fake"):
        assert counted[f"pretrain_d/{tag}"] == list(range(1, EPOCHS["pretrain_d"] + 1))
    for tag in ("d_held_out_accuracy_real", "d_held_out_accuracy_fake", "d_held_out_auc"):
        assert counted[f"pretrain_d/{tag}"] == [7, EPOCHS["pretrain_d"]]
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


def write_evaluations(log):
    log.evaluation({"phase": "pretrain_g", "epoch": 1, "step": 1}, {}, {}, sample="a" * 5000)
    log.marks()


def write_many_numbers(log):
    log.training("pretrain_g", 1, 1, {f"{number}": 0.0 for number in range(100)})  # longer as events than as JSON
    log.marks()


TOO_LONG = {
    "events of an evaluation": (write_evaluations, "eval"),
    "events of the training": (write_many_numbers, "train"),
    "events at the end": (lambda log: log.eval_events.add_text("sample", "a" * 5000), "eval"),
    "a line on an evaluation": (lambda log: log.evaluation({"phase": "a" * 5000, "step": 1}, {}, {}, ""), "train/metrics.jsonl"),
    "a line on the training": (lambda log: log.training("a" * 5000, 1, 1, {}), "train/training.jsonl"),
    "a sound": (lambda log: log.media(Media(images={}, sounds={"song": bytes(5000)}), 1), "eval"),
    "an image": (lambda log: log.token_image(torch.randint(99, (99, 99)), 99, 1), "eval"),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_an_error_of_a_full_disk_names_the_folder_that_is_full(name, tmp_path):
    """Neither TensorBoard's writers nor a line that does not fit name a file; a limit on the size of files stands for the disk."""
    write, where = TOO_LONG[name]
    (tmp_path / "train").mkdir()
    log = RunLog(tmp_path / "train", tmp_path / "eval")
    log.open()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))

    def write_and_close():
        try:
            write(log)
        finally:
            log.close()

    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_and_close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / where)


@pytest.fixture
def hook(monkeypatch):
    """The hook for errors of threads, whatever a run of an earlier test has left there."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    return threading.__excepthook__


def test_the_hook_for_errors_of_threads_is_restored_where_the_log_does_not_open(tmp_path, hook, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("running.run_log.SummaryWriter", full)
    log = RunLog(tmp_path, tmp_path / "eval")
    with pytest.raises(OSError, match="No space left"):
        log.open()
    log.close()
    assert threading.excepthook is hook


def test_the_hook_for_errors_of_threads_is_restored(tmp_path, hook):
    before = threading.excepthook
    log = RunLog(tmp_path, tmp_path / "eval")
    log.open()
    assert threading.excepthook is not before
    log.close()
    assert threading.excepthook is before


class FullDisk(io.StringIO):
    """Standard output into a file on a full disk."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_the_screen_does_not_name_a_folder(tmp_path, monkeypatch):
    log = RunLog(tmp_path, tmp_path / "eval")
    log.open()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", FullDisk())
        with pytest.raises(OSError, match="No space left") as caught:
            log.line("text")
    log.close()
    assert caught.value.filename == "standard output"
