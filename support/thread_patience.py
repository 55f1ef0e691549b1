"""How long idle OpenMP threads busy-wait. Imported before torch, which reads the setting when it is loaded.

Opens closed standard streams as well: torch must not get their numbers for files of its own.

An idle thread busy-waits for more work before it sleeps: faster on free cores, slower on shared ones. With GNU OpenMP's default
a training step takes 100 times as long once another program uses some of the cores. With this setting it takes 5 to 10 times as
long there, and a sixth longer on free cores. The user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT is left as it is.
"""

import os

import support.quiet_stop  # noqa: F401  before everything that takes time
from support.standard_streams import open_closed_streams
from support.torchrun import number_of_ranks

open_closed_streams()
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if number_of_ranks() > 1:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost rank is reported in one line, not by warnings of sockets
