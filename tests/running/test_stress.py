"""The harnesses of tests/stress.py, for seconds instead of hours, and whether they notice what they are for."""

from helpers.kills import kill_runs

FORGETS_A_RANDOM_STREAM = """
from train_state import TrainState
load = TrainState.load_state_dict
def forgetful(self, saved):
    fresh = self.streams["policy samples"].get_state()
    load(self, saved)
    self.streams["policy samples"].set_state(fresh)
TrainState.load_state_dict = forgetful
"""


def test_killed_runs_end_like_unbroken_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counts = kill_runs(12, seed=3, folder=tmp_path, show=print, names=("recipe", "text"))
    assert counts.keys() == {"equal", "kills"}, counts


def test_a_random_stream_that_is_not_restored_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counts = kill_runs(8, seed=3, folder=tmp_path, show=print, change=FORGETS_A_RANDOM_STREAM, names=("oracle",))
    assert counts["different"], counts
