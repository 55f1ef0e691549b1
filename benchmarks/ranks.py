"""How long an adversarial epoch takes in one process, or in several under torchrun, and how much of it is exchange.

    python benchmarks/ranks.py --threads 2
    torchrun --nproc_per_node 2 benchmarks/ranks.py --threads 1

At `paper` the training set has 1/64 of its sequences and an epoch 1/64 of D's updates. The time of an exchange includes the
wait for the slowest rank.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import torch
from torch import Tensor

from data_loader import make_data
from fast import native
from running.flags import preset_settings
from support import world
from support.command_line import Parser, whole
from support.device import choose_device, describe_device
from support.errors import exit_with_one_line
from support.threads import set_up
from support.torchrun import is_first
from train import adversarial_epoch, pretrain_d_epoch
from train_state import make_state

PRESETS = ("default", "original", "paper", "smoke")
EXCHANGED: list[float] = []  # seconds of each exchange of the epoch under way


def timed_exchange(exchange):
    """The exchange of `support.world`, timed."""

    def timed(tensor: Tensor) -> None:
        begun = time.perf_counter()
        exchange(tensor)
        EXCHANGED.append(time.perf_counter() - begun)

    return timed


def measure(preset: str, rounds: int, device: torch.device) -> str:
    """One row of the table."""
    args = argparse.Namespace(**preset_settings(preset))
    args.train_size = max(args.train_size // 64, args.batch_size) if args.train_size else 0
    args.eval_samples, args.evaluate = 100, False
    state, data = make_state(args, device), make_data(args, device)
    pretrain_d_epoch(state, data, args)
    seconds, exchanges, exchanged = [], 0, []
    for _ in range(rounds):
        EXCHANGED.clear()
        begun = time.perf_counter()
        adversarial_epoch(state, data, args)
        seconds.append(time.perf_counter() - begun)
        exchanges, exchanged = len(EXCHANGED), [*exchanged, sum(EXCHANGED)]
    share = sum(exchanged) / sum(seconds)
    threads = torch.get_num_threads()
    return f"| `{preset}` | {world.size()} | {threads} | {statistics.median(seconds):.3f} s | {exchanges} | {share:.0%} |"


@exit_with_one_line
def main() -> int:
    """The command; returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=whole(0), default=0, help="of each process")
    parser.add_argument("--rounds", type=whole(1), default=5, help="epochs of each preset")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["original", "paper"])
    given = parser.parse_args()
    device = choose_device("auto")
    set_up(given.threads)
    native.set_up("auto", device)
    world._sum = timed_exchange(world._sum)
    with world.one_report(), world.join(device, 600):
        rows = [measure(preset, given.rounds, device) for preset in given.presets]
    if is_first():
        print(f"{describe_device(device)}, torch {torch.__version__}, tokens drawn by {native.choice().words}")
        print("| preset | processes | threads each | an adversarial epoch | exchanges | their share |\n|---|---|---|---|---|---|")
        print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
