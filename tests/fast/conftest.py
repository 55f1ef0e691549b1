"""Drawing by torch and by the compiled kernel; Triton's interpreter where there is no GPU."""

import os
import shutil

import pytest
import torch

from fast import native

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where functions of fast/triton_*.py are defined


@pytest.fixture(params=["torch", "native"])
def draws(request):
    """What draws tokens on the CPU in a test, which runs once with each; tests/conftest.py goes back to torch afterwards."""
    if request.param == "native":
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler")
        native.set_up("True", torch.device("cpu"))
    return request.param


@pytest.fixture
def use(monkeypatch):
    """Chooses torch (None) or Triton for what follows, as on a GPU."""
    monkeypatch.setattr("support.threads.CPU_TYPES", ())
    return lambda module: monkeypatch.setattr(native, "_choice", native.Choice(None, "as a test says", module))
