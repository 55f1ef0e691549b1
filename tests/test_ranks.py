"""One run in several processes: the same sequences and rewards, the same training up to rounding, and one end."""

import json
import math
import signal

import pytest
from helpers.cli import ROOT, TINY, call, folders, json_lines, run, snapshot
from helpers.processes import wait_for_epochs
from helpers.ranks import ranks
from helpers.tunes import split_folder

import main
from running.settings import resolve

EPOCHS = ["--pretrain_g_epochs", "6", "--pretrain_d_epochs", "2", "--total_epochs", "4", "--eval_every", "2", "--save_every", "2"]

# Sequences and rewards of a fresh model, then the losses of 50 updates of each kind.
TRAINING = f"""
import argparse, hashlib, json, sys, torch
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from fast.completions import completions
from helpers.small_runs import small_run
from support import threads, world
from rewards import REWARDS
from train import d_steps, mle_step
from updates import policy_update
threads.set_up(1)
digest = lambda tensor: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
with world.one_report(), world.join(torch.device("cpu"), 30):
    for line in sys.argv[2:]:
        state, data, args = small_run(**json.loads(line))
        found = {{"sequences": digest(state.sample(7, args.seq_len, "policy samples"))}}
        if args.rollout_num:
            own = completions(state.policy, data.held_out, 3, state.streams["rollouts"], own=world.rows(len(data.held_out)))
            found["roll-outs"] = digest(world.gather(own, len(data.held_out), dim=1))
        tokens = state.sample(args.batch_size, args.seq_len, "policy samples")
        numbers = [data.nll_valid(state.generator)]
        for reward in REWARDS.values():
            numbers += reward.values(tokens, state, data, args).flatten().tolist()
        for _ in range(int(sys.argv[1])):
            numbers += [x.item() for x in mle_step(state, args, data.training_batch(args.batch_size))]
            tokens = state.sample(args.batch_size, args.seq_len, "policy samples")
            rewards = REWARDS["discriminator"].values(tokens, state, data, args)
            numbers += [x.item() for x in policy_update(state, args, tokens, rewards)]
            numbers += [x.item() for x in d_steps(state, data, args, 1)[0]]
        found["numbers"] = numbers
        print(json.dumps(found))
"""


def on_ranks(number, program, *arguments, cwd):
    """What each rank prints."""
    with ranks(number, "-c", program, *arguments, cwd=cwd) as started:
        found = started.end()
    assert [status for status, _, _ in found] == [0] * number, found
    return [[json.loads(line) for line in text.splitlines()] for _, text, _ in found]


def test_the_same_sequences_and_rewards_and_losses_on_any_number_of_ranks(tmp_path):
    """Batches of 6 and 7 sequences, which 4 ranks do not share evenly."""
    settings = [
        {},
        {"train_size": 18, "g_dropout": 0.2, "g_emb_dropout": 0.1, "d_l2": 0.3, "policy_loss": "sum"},
        {"kl_weight": 0.5, "baseline": "leave_one_out", "rollout_num": 0, "reward_form": "logit", "batch_size": 7},
        {"variable_length": True, "baseline": "state", "kl_weight": 0.2, "policy_batch": 9},
    ]
    lines = [json.dumps(changes) for changes in settings]
    for number, updates, part in ((2, "50", lines[:1]), (2, "8", lines[1:]), (4, "3", lines)):
        (alone,) = on_ranks(1, TRAINING, updates, *part, cwd=tmp_path)
        found = on_ranks(number, TRAINING, updates, *part, cwd=tmp_path)
        assert all(other == found[0] for other in found)  # the ranks of a run, to the last bit
        for one, together in zip(alone, found[0], strict=True):
            assert together.pop("numbers") == pytest.approx(one["numbers"], abs=1e-5)
            assert together == {name: value for name, value in one.items() if name != "numbers"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run in one process, and of the same run in two."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(*EPOCHS, *folders(folder / "one")) == 0
    train(2, folder / "two")
    return folder


def train(number, folder, *flags, **start):
    """A run on so many ranks, which must reach its end; returns what they print."""
    with ranks(number, str(ROOT / "main.py"), *TINY, *EPOCHS, *flags, *folders(folder), cwd=folder.parent, **start) as started:
        found = started.end()
    assert [status for status, _, _ in found] == [0] * number, found
    return found


def assert_close(one, other):
    """The evaluations of two runs are equal up to rounding, sequences drawn included."""
    rows, others = (json_lines(folder / "train/metrics.jsonl") for folder in (one, other))
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, its in zip(rows, others, strict=True):
        assert row.keys() == its.keys()
        for name, value in row.items():
            assert value == its[name] or math.isclose(value, its[name], abs_tol=1e-4), (name, row["step"])


def test_a_run_in_two_processes_leaves_the_files_of_one(whole):
    assert_close(whole / "one", whole / "two")
    names = [sorted(p.name.partition(".tfevents")[0] for p in (whole / name).rglob("*")) for name in ("one", "two")]
    assert names[0] == names[1]


@pytest.mark.parametrize("kind", ["tunes", "text"])
def test_runs_on_tunes_and_text_leave_the_same_in_two_processes(kind, tmp_path):
    if kind == "tunes":
        tunes = split_folder(tmp_path / "tunes", 5, 2, 3)
        data = ["--dataset", "Nottingham", "--vocab_size", "89", "--data_dir", str(tunes), "--sample_every", "3"]
    else:
        (tmp_path / "lines.txt").write_text("".join(f"{a} {b} {c}\n" for a in "abcd" for b in "efg" for c in "hi"))
        settings = {"dataset": "Text", "data_path": str(tmp_path / "lines.txt"), "seq_len": 5}
        data = ["--dataset", "Text", "--data_path", settings["data_path"], "--vocab_size", str(resolve(settings).args.vocab_size)]
    for number in (1, 2):
        train(number, tmp_path / str(number), *data)
    assert_close(tmp_path / "1", tmp_path / "2")
    names = [sorted(p.name.partition(".tfevents")[0] for p in (tmp_path / name).rglob("*")) for name in "12"]
    assert names[0] == names[1] and "samples" in names[0]


def test_only_the_first_rank_speaks(tmp_path):
    (_, text, error), (_, other_text, other_error) = train(2, tmp_path, "--total_epochs", "1")
    assert "2 processes" in text and "after 7 epochs of G" in text
    assert (other_text, other_error) == ("", "") and error == ""


@pytest.mark.parametrize("number", [1, 4])
def test_a_checkpoint_of_two_ranks_goes_on_with_any_number(number, whole, tmp_path):
    train(2, tmp_path / "run", "--total_epochs", "2")
    train(number, tmp_path / "run", "--resume", "auto")
    assert_close(whole / "two", tmp_path / "run")


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("epochs", [3, 7, 10], ids=["pretrain_g", "pretrain_d", "adversarial"])
def test_a_killed_rank_ends_the_run_which_goes_on_to_the_same_end(lost, epochs, whole, tmp_path):
    flags = [*TINY, *EPOCHS, *folders(tmp_path / "run"), "--resume", "auto", "--dist_timeout", "5"]
    with ranks(2, str(ROOT / "main.py"), *flags, cwd=tmp_path) as started:
        wait_for_epochs(started.processes[0], tmp_path / "run/train", epochs)
        started.processes[lost].kill()
        found = started.end()
    status, _, error = found[1 - lost]
    if status:  # else the run was at its end
        assert (status, error.count("\n")) == (2, 1) and "another process of this run has ended" in error
    train(2, tmp_path / "run", "--resume", "auto", restarts=1, store=started.store)
    assert snapshot(tmp_path / "run/train")["metrics.jsonl"] == snapshot(whole / "two/train")["metrics.jsonl"]


def test_ranks_that_see_different_folders_end_with_one_line(tmp_path):
    """One starts the run, the other one would go on with another."""
    for rank in "01":
        (tmp_path / rank).mkdir()
    train(1, tmp_path / "1/run", "--total_epochs", "0")
    program = f"import os, runpy, sys; os.chdir(os.environ['RANK']); sys.argv[0] = {str(ROOT / 'main.py')!r}; "
    program += "sys.path[:0] = [os.path.dirname(sys.argv[0])]; runpy.run_path(sys.argv[0], run_name='__main__')"
    places = ["--log_dir", "run/train", "--eval_log_dir", "run/eval"]
    with ranks(2, "-c", program, *TINY, *EPOCHS, *places, "--resume", "auto", "--dist_timeout", "5", cwd=tmp_path) as started:
        found = started.end()
    assert [status for status, _, _ in found] == [2, 2]
    assert "".join(error for _, _, error in found) == "error: all processes must see the same folder of the run\n"


def test_one_rank_evaluates_a_finished_run_and_the_others_end(whole):
    with ranks(2, str(ROOT / "main.py"), "--is_train", "False", *folders(whole / "two"), cwd=whole) as started:
        (status, text, error), other = started.end(timeout=30)
    assert (status, error, other) == (0, "", (0, "", "")) and "nll_test" in text


def test_a_run_starts_from_one_with_a_batch_for_each_rank(tmp_path):
    sizes = TINY.index("--batch_size")
    flags = [*TINY[:sizes], *TINY[sizes + 2 :], "--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1"]
    assert call(main.main, *flags, "--batch_per_rank", "3", "--total_epochs", "0", *folders(tmp_path / "one")) == 0
    assert (
        call(main.main, *flags, "--start_from", str(tmp_path / "one/train"), "--total_epochs", "1", *folders(tmp_path / "two")) == 0
    )
    saved = json.loads((tmp_path / "two/train/config.json").read_text())["args"]
    assert (saved["batch_size"], saved["batch_per_rank"]) == (3, None)


STOPS = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import main
from running.trainer import Trainer
show = Trainer._show
def stop(self, phase, epoch, *rest):
    show(self, phase, epoch, *rest)
    if os.environ["RANK"] == "1" and (phase, epoch) == ("adversarial", 1):
        os.kill(os.getpid(), signal.SIGSTOP)
Trainer._show = stop
sys.exit(main.main())
"""


def test_a_stopped_rank_ends_the_run_within_the_timeout(tmp_path):
    flags = [*TINY, *EPOCHS, *folders(tmp_path), "--dist_timeout", "2"]
    with ranks(2, "-c", STOPS, *flags, cwd=tmp_path) as started:
        _, error = started.processes[0].communicate(timeout=30)
    assert started.processes[0].returncode == 2
    assert error == "error: another process of this run has ended, or did not answer within --dist_timeout 2 s\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_ranks_saves_once_and_ends_all(number, tmp_path):
    flags = [*TINY, *EPOCHS, "--total_epochs", "3000", *folders(tmp_path)]
    with ranks(2, str(ROOT / "main.py"), *flags, cwd=tmp_path) as started:
        wait_for_epochs(started.processes[0], tmp_path / "train", 9)
        for process in started.processes:
            process.send_signal(number)
        (status, text, error), other = started.end()
    assert (status, error, other) == (130, "", (130, "", ""))
    assert text.count("everything is saved") == 1
    train(1, tmp_path, "--resume", "auto", "--total_epochs", str(len(json_lines(tmp_path / "train/training.jsonl"))))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no_such_flag"], "unrecognized arguments"),
        (["--d_filters", "9x4"], "does not fit sequences of --seq_len 5"),
        (["--log_dir", "/dev/null/x"], "/dev/null"),
        (["--batch_size", "1"], "fewer sequences than the 2 processes"),
        (["--batch_per_rank", "2", "--batch_size", "4"], "choose one of them"),
        (["--g_lr", "1e38", "--grad_clip", "1e30"], "a lower learning rate may help"),
    ],
)
def test_what_ends_a_run_is_said_once(flags, words, tmp_path):
    with ranks(
        2, str(ROOT / "main.py"), *TINY, *EPOCHS, *folders(tmp_path), "--dist_timeout", "3", *flags, cwd=tmp_path
    ) as started:
        found = started.end()
    assert [status for status, _, _ in found] == [2, 2]
    errors = [
        line for _, _, error in found for line in error.splitlines() if not line.startswith("[W")
    ]  # as torch is loaded already
    assert len(errors) == 1 and words in errors[0]


def test_a_batch_for_each_rank(tmp_path):
    sizes = TINY.index("--batch_size")
    flags = [*TINY[:sizes], *TINY[sizes + 2 :], "--pretrain_g_epochs", "1", "--pretrain_d_epochs", "0", "--total_epochs", "0"]
    with ranks(2, str(ROOT / "main.py"), *flags, "--batch_per_rank", "3", *folders(tmp_path), cwd=tmp_path) as started:
        assert [status for status, _, _ in started.end()] == [0, 0]
    saved = json.loads((tmp_path / "train/config.json").read_text())["args"]
    assert (saved["batch_size"], saved["batch_per_rank"]) == (6, 3)
