"""Drawing by torch and by the compiled kernel."""

import shutil

import pytest
import torch

from fast import native


@pytest.fixture(params=["torch", "native"])
def draws(request):
    """What draws tokens on the CPU in a test, which runs once with each; tests/conftest.py goes back to torch afterwards."""
    if request.param == "native":
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler")
        native.set_up("True", torch.device("cpu"))
    return request.param
