"""The harnesses of tests/stress.py, for seconds instead of hours, and whether they notice what they are for."""

import zipfile

from helpers.fuzz import Reader, fuzz
from helpers.kills import NEVER, TIMEOUT, kill_runs
from helpers.readers import all_readers, checkpoints

FORGETS_A_RANDOM_STREAM = """
from train_state import TrainState
load = TrainState.load_state_dict
def forgetful(self, saved):
    fresh = self.streams["policy samples"].get_state()
    load(self, saved)
    self.streams["policy samples"].set_state(fresh)
TrainState.load_state_dict = forgetful
from running.run_log import RunLog
log_epoch = RunLog.training
def training(self, phase, epoch, *rest):
    log_epoch(self, phase, epoch, *rest)
    if (phase, epoch) == ("adversarial", 3) and "--resume" not in sys.argv:
        os.kill(os.getpid(), 9)
RunLog.training = training
"""


def test_killed_runs_end_like_unbroken_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counts = kill_runs(6, seed=3, folder=tmp_path, show=print, names=("recipe", "text"))
    assert counts.keys() == {"equal", "kills"}, counts


def test_a_random_stream_that_is_not_restored_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.kills.MOST_OPERATIONS", NEVER)  # the change above kills the run in the phase that draws from it
    monkeypatch.setattr("helpers.kills.LONGEST_DELAY", TIMEOUT)
    counts = kill_runs(1, seed=3, folder=tmp_path, show=print, change=FORGETS_A_RANDOM_STREAM, names=("oracle",))
    assert counts == {"different": 1, "kills": 1}


def test_every_reader_takes_or_refuses_changed_inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for reader in all_readers(tmp_path):
        counts = fuzz(reader, inputs=40, seed=4, keep=tmp_path, show=print)
        assert counts["wrong"] == counts["hung"] == 0, (reader.name, counts)


def test_a_missing_checksum_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (reader,) = (reader for reader in checkpoints(tmp_path) if reader.name == "bytes of judges.pt")
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _archive: None)
    assert fuzz(reader, inputs=200, seed=4, keep=tmp_path, show=lambda _line: None)["wrong"]


def test_a_reader_that_hangs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.fuzz.TIME_LIMIT", 0.05)

    def read(_data):
        while True:
            pass

    reader = Reader("never ends", (b"x",), read, ())
    assert fuzz(reader, inputs=2, seed=4, keep=tmp_path, show=lambda _line: None) == {"hung": 2}
