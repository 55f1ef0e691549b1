"""Runs that are killed, stopped by Ctrl-C or SIGTERM, or whose output is no longer read."""

import re
import signal
import time

import pytest
import torch
from helpers.cli import call, folders, json_lines, scalars
from helpers.processes import start, start_signalled, wait_for_epochs
from helpers.whole_run import EPOCHS, WHOLE, assert_same_run

import main


def epochs_saved(log_dir):
    """The epochs of each phase in a run's checkpoint."""
    return torch.load(log_dir / "last.pt", weights_only=True)["state"]["counts"]["epochs_done"]


@pytest.mark.parametrize(("phase", "epoch"), [("pretrain_g", 25), ("pretrain_d", 11), ("adversarial", 17)])
def test_a_killed_run_resumes_to_the_same_end(finished, tmp_path, phase, epoch):
    """Epochs after the last checkpoint are in the logs, of G with an evaluation among them: each must appear once in the end."""
    process = start_signalled(*WHOLE, *folders(tmp_path), after=(phase, epoch), number=signal.SIGKILL, cwd=tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    killed = json_lines(tmp_path / "train/training.jsonl")[-1]
    assert (killed["phase"], killed["epoch"]) == (phase, epoch)
    assert 0 < epochs_saved(tmp_path / "train")[phase] < epoch
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train")) == 0
    assert_same_run(finished, tmp_path)


def test_ctrl_c_saves_and_says_how_to_go_on(finished, tmp_path):
    rarely = ["--save_every", "100000"]
    process = start_signalled(*WHOLE, *rarely, *folders(tmp_path), after=("pretrain_g", 10), number=signal.SIGINT, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    again = re.search(r"Go on with: python main\.py (.*)", out).group(1).split()
    done = epochs_saved(tmp_path / "train")
    assert 10 <= done["pretrain_g"] < EPOCHS["pretrain_g"]
    assert json_lines(tmp_path / "train/training.jsonl")[-1]["epoch"] == done["pretrain_g"]
    assert call(main.main, *again) == 0
    assert_same_run(finished, tmp_path)


def test_a_run_killed_before_its_first_save_has_no_point_twice(tmp_path):
    process = start("--pretrain_g_epochs", "100000", "--save_every", "1000000", *folders(tmp_path), cwd=tmp_path)
    wait_for_epochs(process, tmp_path / "train", 30)
    process.kill()
    process.communicate()
    again = ["--resume", "--log_dir", str(tmp_path / "train"), "--pretrain_g_epochs", "20", "--total_epochs", "0"]
    assert call(main.main, *again) == 0
    assert [row["step"] for row in json_lines(tmp_path / "train/metrics.jsonl")] == [0, 10, 20]
    assert [step for step, _ in scalars(tmp_path / "eval")["nll"]] == [0, 10, 20]


@pytest.mark.parametrize("signalled", [True, False])
def test_no_epoch_is_lost_where_the_reader_of_the_output_ends(signalled, tmp_path):
    """`main.py | tee log` and Ctrl-C, which ends tee first; and `main.py | head`."""
    long = ["--pretrain_g_epochs", "100000" if signalled else "3000", "--save_every", "100000", "--eval_every", "100000"]
    process = start(*long, *folders(tmp_path), cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("on "):
            break
    wait_for_epochs(process, tmp_path / "train", 20)
    process.stdout.close()
    if signalled:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == (130 if signalled else 141)
    saved = epochs_saved(tmp_path / "train")["pretrain_g"]
    assert 20 <= saved == len(json_lines(tmp_path / "train/training.jsonl")) < int(long[1])
    assert process.stderr.read() == ""


def test_sigterm_ends_the_last_evaluation(tmp_path):
    short = ["--total_epochs", "0", "--pretrain_g_epochs", "1", "--final_eval_samples", "6000000"]
    process = start(*short, *folders(tmp_path), cwd=tmp_path)
    wait_for_epochs(process, tmp_path / "train", 1)
    while not epochs_saved(tmp_path / "train")["pretrain_g"]:
        time.sleep(0.02)
    time.sleep(0.5)  # after the last checkpoint the evaluation begins
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert "go on" in out
