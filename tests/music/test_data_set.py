"""Runs on MIDI files, from the files to the songs, at tiny sizes."""

import io
import json
import shutil
import wave

import mido
import numpy as np
import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, json_lines, run, same, scalars, snapshot, trained_state
from helpers.tunes import MUSIC, SHORT, scale, tune
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.audio import metadata as audio_metadata

import main
from music.data_set import TuneData
from music.midi import Grid, read_tokens
from running.run_log import chart
from running.settings import resolve


def test_every_evaluation_has_all_measures_and_their_curves(finished):
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
    assert folders_found == ["best", "epoch_0003", "epoch_0005", "epoch_0006", "epoch_0009", "last"]
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


def test_training_windows_come_from_training_tunes_only(tunes):
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


def test_a_run_resumes_after_its_tunes_were_moved(tunes, tmp_path, capsys):
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
    assert_one_line_error(capsys, "not the tunes that this run began with")
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
    "short": (lambda p: folder_of(p / "a", a=scale(3), b=scale(4), c=scale(5)), "no train tune has --seq_len 8 frames"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_ends_with_one_line_and_writes_nothing(name, tmp_path, capsys):
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
