"""Settings of a device."""

import torch

from support.device import matmul_precision


def test_tf32_is_set_inside_the_context_only():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with matmul_precision("tf32", torch.device("cuda")):
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before
    with matmul_precision("float32", torch.device("cuda")):
        assert matmul.fp32_precision == "ieee"
