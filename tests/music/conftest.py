"""Tunes, and a finished run on them."""

import pytest
from helpers.cli import folders, run
from helpers.tunes import MUSIC, SHORT, split_folder


@pytest.fixture(autouse=True)
def _own_cache_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="session")
def tunes(tmp_path_factory):
    """A folder of tunes with a split. Tests only read it."""
    return split_folder(tmp_path_factory.mktemp("tunes") / "tunes", 5, 2, 3)


@pytest.fixture(scope="session")
def finished(tunes, tmp_path_factory):
    """A short run on them: `train` and `eval` below its folder. Tests only read it."""
    folder = tmp_path_factory.mktemp("music")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert run(*MUSIC, *SHORT, "--data_dir", str(tunes), *folders(folder)) == 0
    return folder
