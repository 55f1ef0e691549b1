"""Whether Triton's interpreter works: version 3.6 fails in loops with NumPy 2.4, version 3.9 does not."""

import torch
import triton
import triton.language as tl


@triton.jit
def _count(result, number):
    total = 0
    for _ in range(0, number, 2):
        total += 1
    tl.store(result, total)


def interpreter_works() -> bool:
    """Runs a loop; needs TRITON_INTERPRET=1 when this module is loaded."""
    result = torch.zeros(1, dtype=torch.int32)
    try:
        _count[(1,)](result, 5)
    except triton.runtime.errors.InterpreterError:
        return False
    return result.item() == 3
