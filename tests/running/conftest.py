"""What the tests of runs share."""

import pytest
from helpers.cli import folders, run
from helpers.whole_run import WHOLE


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run with every phase: its folder holds `train` and `eval`. Tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(*WHOLE, *folders(folder)) == 0
    return folder
