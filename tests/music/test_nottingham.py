"""Runs on MIDI files, from the files to the songs, at tiny sizes."""

import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import wave
import zipfile

import mido
import numpy as np
import pytest
import torch
from helpers.cli import ROOT, assert_one_line_error, call, folders, json_lines, run, same, scalars, snapshot, trained_state
from helpers.tunes import scale, split_folder, tune
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.audio import metadata as audio_metadata

import main
import sample
from music.data_set import TuneData
from music.midi import Grid, read_tokens
from running.run_log import chart
from running.settings import resolve

MUSIC = "--dataset Nottingham --vocab_size 89 --seq_len 8 --eval_every 2 --sample_every 3 --save_every 2".split()
SHORT = "--pretrain_g_epochs 5 --pretrain_d_epochs 2 --total_epochs 4".split()


@pytest.fixture(autouse=True)
def _own_cache_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="module")
def tunes(tmp_path_factory):
    """A folder of tunes with a split."""
    return split_folder(tmp_path_factory.mktemp("tunes") / "tunes", 5, 2, 3)


@pytest.fixture(scope="module")
def finished(tunes, tmp_path_factory):
    """A short run on them: `train` and `eval` below its folder."""
    folder = tmp_path_factory.mktemp("music")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    assert run(*MUSIC, *SHORT, "--data_dir", str(tunes), *folders(folder)) == 0
    return folder


def test_a_run_measures_what_the_readme_says(finished):
    rows = json_lines(finished / "train/metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4, 5, 6, 8, 9]
    measures = {"bleu4", "self_bleu4", "mse", "pitch_class_distance", "interval_distance"}
    for row in rows:
        assert {"nll_test", "copied", "distinct_tokens", *measures, *(f"real_{name}" for name in measures)} <= row.keys()
        assert "nll_oracle" not in row
    measured = {name for name in rows[0] if name not in ("phase", "epoch", "step") and not name.endswith("_error")}
    assert set(scalars(finished / "eval")) == {chart(name) for name in measured}
    assert {"nll_test", "samples/bleu4", "samples/copied", "real/bleu4"} <= set(scalars(finished / "eval"))
    final = json.loads((finished / "train/final.json").read_text())
    assert final["nll_test"] == pytest.approx(rows[-1]["nll_test"])  # the held-out windows are the same
    assert final["real_self_bleu4"] > rows[-1]["real_self_bleu4"]  # of 50 windows, not 20: as many as were generated


def test_songs_are_written_and_shown(finished):
    folders_found = sorted(p.name for p in (finished / "train/samples").iterdir())
    assert folders_found == ["epoch_0003", "epoch_0005", "epoch_0006", "epoch_0009"]
    for path in (finished / "train/samples").rglob("*.mid"):
        song = mido.MidiFile(path)
        assert song.length == pytest.approx(8 * 0.4, abs=0.01)
        assert len(read_tokens(path, Grid())) == 8
    assert len(list((finished / "train/samples/epoch_0009").iterdir())) == 5
    events = EventAccumulator(str(finished / "eval"), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("song_1")] == [3, 5, 6, 9]
    about = events.SummaryMetadata("song_2").plugin_data
    assert about.plugin_name == "audio"
    assert audio_metadata.parse_plugin_metadata(about.content).encoding == audio_metadata.Encoding.Value("WAV")
    with wave.open(io.BytesIO(events.Tensors("song_2")[-1].tensor_proto.string_val[0])) as clip:
        assert clip.getnframes() / clip.getframerate() == pytest.approx(8 * 0.4, abs=0.01)
    assert sorted(events.Tags()["images"]) == ["piano_roll/generated", "piano_roll/real"]


def test_training_windows_are_the_training_tunes_only(tunes):
    args = resolve({"dataset": "Nottingham", "data_dir": str(tunes), "seq_len": 8, "eval_samples": 50}).args
    data = TuneData(args, torch.device("cpu"))
    train = {row.tobytes() for row in data.windows}
    expected = set()
    for path in (tunes / "train").iterdir():
        tokens = read_tokens(path, Grid())
        expected |= {tokens[i : i + 8].tobytes() for i in range(len(tokens) - 7)}
    assert train == expected
    batch = next(iter(data.batches(64)))
    assert batch.dtype == torch.int64
    assert {row.astype(np.uint8).tobytes() for row in batch.numpy()} <= train
    positions = len({row.tobytes() for row in data.fresh(2000).numpy().astype(np.uint8)})
    assert positions == len(train)  # every position comes up
    assert len(data.held_out) == 3 * 5


def test_the_tunes_of_a_run_may_move(tunes, tmp_path, capsys):
    data = shutil.copytree(tunes, tmp_path / "tunes")
    short = "--pretrain_g_epochs 2 --total_epochs 0".split()
    assert run(*MUSIC, *short, "--data_dir", str(data), *folders(tmp_path)) == 0
    data.rename(tmp_path / "moved")
    capsys.readouterr()
    again = ["--resume", *folders(tmp_path)]
    assert call(main.main, *again, "--pretrain_g_epochs", "3") == 2
    assert_one_line_error(capsys, "no data at")
    for more in (["--pretrain_g_epochs", "3"], ["--pretrain_g_epochs", "4"], ["--is_train", "False"]):
        moved = [] if more[1] == "4" else ["--data_dir", str(tmp_path / "moved")]  # the run remembers where they are
        assert call(main.main, *again, *more, *moved) == 0, capsys.readouterr().err


def test_resuming_ends_with_the_same_weights_and_refuses_other_tunes(finished, tunes, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tunes, copy)
    flags = [*MUSIC, *SHORT, "--data_dir", str(copy), *folders(tmp_path)]
    assert run(*flags, "--total_epochs", "0") == 0
    again = ["--resume", "--log_dir", str(tmp_path / "train")]
    assert call(main.main, *again, "--total_epochs", "4") == 0
    assert same(trained_state(finished / "train"), trained_state(tmp_path / "train"))
    (copy / "train/train_0.mid").write_bytes(scale(90))
    before = snapshot(tmp_path / "train")
    capsys.readouterr()
    assert call(main.main, *again, "--total_epochs", "6") == 2
    assert_one_line_error(capsys, "not those that this run began with")
    assert snapshot(tmp_path / "train") == before


def folder_of(path, **files):
    """A folder with these files, `a` meaning a.mid."""
    path.mkdir()
    for name, data in files.items():
        (path / f"{name}.mid").write_bytes(data)
    return path


BAD_DATA = {
    "no folder": (lambda p: p / "none", "train_nottingham.sh"),
    "empty folder": (lambda p: folder_of(p / "a"), "holds no MIDI file"),
    "words": (lambda p: folder_of(p / "a", a=b"la la la"), "a.mid: not a readable MIDI file"),
    "cut": (lambda p: folder_of(p / "a", a=scale()[:70]), "a.mid: not a readable MIDI file"),
    "no notes": (lambda p: folder_of(p / "a", a=tune()), "a.mid: no notes"),
    "drums": (lambda p: folder_of(p / "a", a=tune((40, 0, 9), drum=True)), "a.mid: drums only"),
    "short": (lambda p: folder_of(p / "a", a=scale(3), b=scale(3), c=scale(3)), "no train tune has --seq_len 8 frames"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_ends_with_one_line(name, tmp_path, capsys):
    make, words = BAD_DATA[name]
    source = make(tmp_path)
    before = snapshot(tmp_path)
    assert run(*MUSIC, *SHORT, "--data_dir", str(source), *folders(tmp_path)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --data_dir")
    assert words in error
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.startswith("cache")} == before


def test_other_sizes_of_the_vocabulary_are_refused(capsys):
    assert run(*MUSIC, "--vocab_size", "100") == 2
    assert_one_line_error(capsys, "music has 89 tokens")


def test_skipped_files_are_named_and_counted(tunes, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tunes, copy)
    (copy / "train/words.mid").write_text("la")
    (copy / "train/short.mid").write_bytes(scale(4))
    flags = ["--pretrain_g_epochs", "1", "--total_epochs", "0", "--data_dir", str(copy)]
    assert run(*MUSIC, *flags, *folders(tmp_path)) == 0
    err = capsys.readouterr().err
    assert "1 MIDI files not read: train/words.mid (not a readable MIDI file)" in err
    assert "1 MIDI files left out: train/short.mid (shorter than 8 frames)" in err


def test_sample_writes_songs(finished, tmp_path):
    run_folder = str(finished / "train")
    assert call(sample.main, run_folder, "--num", "3", "--out", str(tmp_path / "songs")) == 0
    assert sorted(p.name for p in (tmp_path / "songs").iterdir()) == ["song_01.mid", "song_02.mid", "song_03.mid"]
    assert call(sample.main, run_folder, "--length", "50", "--out", str(tmp_path / "long.mid")) == 0
    assert len(read_tokens(tmp_path / "long.mid", Grid())) == 50
    assert mido.MidiFile(tmp_path / "long.mid").length == pytest.approx(20, abs=0.01)


def test_overwriting_songs_leaves_none_of_the_old_draw_and_all_that_is_the_users(finished, tmp_path):
    out = tmp_path / "songs"
    flags = [str(finished / "train"), "--out", str(out), "--overwrite"]
    for num in ("100", "12", "10"):
        assert call(sample.main, *flags, "--num", num) == 0
        assert len(list(out.iterdir())) == int(num)
    mine = ["song_1.mid", "song_best.mid", "song_00.mid", "song_03.mid.bak", "my_song_03.mid", "notes.txt"]
    for name in mine:
        (out / name).write_text("mine")
    assert call(sample.main, *flags, "--num", "2") == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(["song_01.mid", "song_02.mid", *mine])
    assert all((out / name).read_text() == "mine" for name in mine)


def test_sample_goes_on_from_a_melody(finished, tmp_path):
    (tmp_path / "prime.mid").write_bytes(scale(6, 70))
    prime = read_tokens(tmp_path / "prime.mid", Grid()).tolist()
    for name, flags in (("a.npy", []), ("b.npy", ["--length", "20"])):
        flags = ["--num", "30", "--prime", str(tmp_path / "prime.mid"), "--out", str(tmp_path / name), *flags]
        assert call(sample.main, str(finished / "train"), *flags) == 0
    tokens = np.load(tmp_path / "a.npy")
    assert tokens.shape == (30, 6 + 8)
    assert np.load(tmp_path / "b.npy").shape == (30, 20)
    assert all(row[:6].tolist() == prime for row in tokens)
    assert len({tuple(row[6:]) for row in tokens.tolist()}) > 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "a.mid", "--num", "2"], "holds one sequence"),
        (["--out", "a.wav"], "must end in"),
        (["--prime", "none.mid"], "No such file"),
        (["--prime", "words.mid"], "not a readable MIDI file"),
        (["--prime", "tune.mid", "--length", "5"], "leaves nothing to add"),
        (["--out", "full"], "exists"),
    ],
)
def test_sample_refuses_what_it_cannot_do(finished, tmp_path, monkeypatch, capsys, flags, words):
    (tmp_path / "words.mid").write_text("la la la")
    (tmp_path / "tune.mid").write_bytes(scale(5))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert call(sample.main, str(finished / "train"), *flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(tmp_path) == before


def shell(folder, *flags, cwd=None, **variables):
    """train_nottingham.sh in a copy of the project, called from there or from cwd; returns the finished process."""
    for path in ROOT.iterdir():
        is_room = path.name in ("fast", "music", "running", "support")
        if path.suffix in (".py", ".sh") or (is_room and not (folder / path.name).exists()):
            (folder / path.name).symlink_to(path) if path.is_dir() else shutil.copy(path, folder)
    environment = {**os.environ, "PYTHON": sys.executable, "NOTTINGHAM_URL": "http://127.0.0.1:9/", **variables}
    environment["NOTTINGHAM_MIRROR"] = "http://127.0.0.1:9/"
    tiny = "--threads 1 --eval_samples 20 --final_eval_samples 20 --pretrain_g_epochs 2 --total_epochs 0 --seq_len 8".split()
    script = "train_nottingham.sh" if cwd is None else os.path.relpath(folder / "train_nottingham.sh", cwd)
    command = ["bash", script, *tiny, *flags]
    return subprocess.run(command, cwd=cwd or folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_script_unpacks_trains_and_can_run_twice(tunes, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "tunes"), "zip", tunes)
    project = tmp_path / "project"
    project.mkdir()
    first = shell(project, "--run_name", "one", NOTTINGHAM_ZIP=zipped)
    assert first.returncode == 0, first.stderr
    assert len(list((project / "data/Nottingham").rglob("*.mid"))) == 10
    assert "694/173/170" in first.stderr  # these are not the original's numbers of files
    assert len(list((project / "logs/train/one/samples").rglob("*.mid"))) == 5
    for path in project.glob("*.py"):
        path.unlink()
    (project / "train_nottingham.sh").unlink()
    (project / "music").unlink()
    second = shell(project, "--run_name", "two")
    assert second.returncode == 0, second.stderr


def test_the_script_fetches_the_archive_where_there_is_none(tunes, tmp_path):
    shutil.make_archive(str(tmp_path / "web/Nottingham"), "zip", tunes)
    project = tmp_path / "project"
    project.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = shell(project, "--run_name", "one", NOTTINGHAM_URL=f"http://127.0.0.1:{server.server_port}/Nottingham.zip")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (project / "data").iterdir()) == ["Nottingham", "Nottingham.zip"]
    assert len(list((project / "data/Nottingham").rglob("*.mid"))) == 10


def test_the_script_without_network_says_where_the_zip_goes(tmp_path):
    done = shell(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "data/Nottingham.zip" in done.stderr
    assert not (tmp_path / "data/Nottingham").exists()


def test_the_script_refuses_an_unsafe_zip(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("train/../../evil.mid", scale())
    (tmp_path / "evil.zip").write_bytes(data.getvalue())
    project = tmp_path / "project"
    project.mkdir()
    done = shell(project, NOTTINGHAM_ZIP=str(tmp_path / "evil.zip"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "not safe" in done.stderr
    assert not list(tmp_path.rglob("evil.mid"))


def data_dir(log_dir):
    """Where a run's settings say that its tunes are."""
    return json.loads((log_dir / "config.json").read_text())["args"]["data_dir"]


def test_the_script_may_be_called_from_another_folder(tunes, tmp_path):
    project, here = tmp_path / "my project", tmp_path / "here"
    project.mkdir()
    here.mkdir()
    shutil.make_archive(str(here / "tunes"), "zip", tunes)
    (here / "main.py").write_text("raise SystemExit('not this one')")
    (here / "music").mkdir()
    first = shell(project, "--run_name", "one", cwd=here, NOTTINGHAM_ZIP="tunes.zip")
    assert first.returncode == 0, first.stderr
    assert len(list((project / "data/Nottingham").rglob("*.mid"))) == 10
    assert data_dir(here / "logs/train/one") == str(project / "data/Nottingham")
    assert not (here / "data").exists()
    assert not (project / "logs").exists()
    for flags in (["--data_dir", "tunes.zip", "--run_name", "two"], ["--data_dir=tunes.zip", "--run_name", "three"]):
        done = shell(project, *flags, cwd=here)
        assert done.returncode == 0, done.stderr
        assert data_dir(here / "logs/train" / flags[-1]) == "tunes.zip"
    done = shell(project, "--is_train", "False", "--run_name", "two", cwd=here)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "resumes"),
    [
        (["--resume"], True),
        (["--resume", "--run_name", "a"], True),
        (["--resume=yes"], True),
        (["--resume", "False"], False),
        (["--resume=false"], False),
        (["--resume", "0"], False),
        (["--resume", "--resume", "no"], False),
        (["--run_name", "a --resume"], False),
    ],
)
def test_the_script_trains_on_the_tunes_unless_it_resumes(tmp_path, flags, resumes):
    project = tmp_path / "project"
    (project / "data/Nottingham").mkdir(parents=True)
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    called = {cwd: shell(project, *flags, cwd=cwd, PYTHON=str(tmp_path / "python")).stdout for cwd in (project, tmp_path)}
    for words in called.values():
        assert words.endswith(f"{' '.join(flags)}\n")
        assert ("--dataset Nottingham" in words) != resumes
    assert "--data_dir" not in called[project]
    assert (f"--data_dir {project}/data/Nottingham" in called[tmp_path]) != resumes
