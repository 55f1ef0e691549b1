"""How the time and memory of one update's rewards grow with T, V, N and B, in a log-log plot.

`python benchmarks/scaling.py --out benchmarks/scaling.png` runs each point in a process of its own, fits the exponent of the time
over the upper half of each sweep, and prints it beside the counted one: B·N·T(T − 1)/2 tokens are drawn, each a product with V
columns, and B·N·(T − 1) sequences of T tokens are scored.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import torch

from fast.cuda_graphs import PLAIN_RUNNER, WARM_UP
from rewards import discriminator_values
from running.flags import preset_settings
from running.memory import PROCESS, needed_bytes
from support.command_line import Parser, whole
from support.device import choose_device, describe_device
from support.errors import exit_with_one_line
from support.random_streams import stream
from support.threads import set_up
from train_state import make_state

NAMES = {"seq_len": "T", "vocab_size": "V", "rollout_num": "N", "batch_size": "B"}
SWEEPS = {
    "seq_len": [10, 20, 40, 80, 160],
    "vocab_size": [1250, 2500, 5000, 10_000, 20_000, 40_000],
    "rollout_num": [4, 8, 16, 32, 64],
    "batch_size": [8, 16, 32, 64, 128],
}


def counted(args: argparse.Namespace) -> float:
    """Multiply-adds of the roll-outs' output products and of D on the completions."""
    t, n = args.seq_len, args.batch_size * args.rollout_num
    numbers = sum(number for _, number in args.d_filters)
    windows = sum(width * number * (t - width + 1) for width, number in args.d_filters) * args.d_emb_dim
    return n * t * (t - 1) / 2 * args.g_hidden_dim * args.vocab_size + n * (t - 1) * (windows + 2 * numbers**2)


def settings(change: dict[str, int]) -> argparse.Namespace:
    """The preset `original` with one size changed."""
    return argparse.Namespace(**{**preset_settings("original"), **change})


def point(change: dict[str, int], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of the rewards at one size, and this process's peak memory in MiB."""
    args = settings(change)
    state = make_state(args, device)
    tokens = state.generator.sample(args.batch_size, args.seq_len, stream(1, "benchmark"))
    first = 1 if state.runner is PLAIN_RUNNER else WARM_UP + 1  # calls that set things up, the recording included
    seconds = []
    for _ in range(first + repeats):
        start = time.perf_counter()
        discriminator_values(tokens, state, None, args).sum().item()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[first:]), "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def slope(x: list[float], y: list[float]) -> float:
    """Least-squares slope of log y over log x, upper half."""
    half = len(x) // 2
    a, b = ([math.log(v) for v in values[half - 1 :]] for values in (x, y))
    mean_a, mean_b = statistics.mean(a), statistics.mean(b)
    return sum((i - mean_a) * (j - mean_b) for i, j in zip(a, b, strict=True)) / sum((i - mean_a) ** 2 for i in a)


@exit_with_one_line
def main() -> int:
    """The command."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="PNG", help="draw the plot (needs matplotlib, see requirements-dev.txt)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=whole(0), default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--repeats", type=whole(1), default=3, help="of each point, of which the median counts (default: %(default)s)"
    )
    parser.add_argument("--point", metavar="JSON", help="time this one change of the default sizes, and print JSON")
    args = parser.parse_args()
    set_up(args.threads)
    device = choose_device(args.device)
    if args.point:
        print(json.dumps(point(json.loads(args.point), device, args.repeats)))
        return 0
    print(f"{describe_device(device)}, torch {torch.__version__}")
    print(f"{'':<8} {'seconds':>9} {'memory':>10} {'estimated':>10}   exponent of the time (counted)")
    curves = {}
    for name, sizes in SWEEPS.items():
        rows, work = [], []
        for size in sizes:
            flags = ["--device", args.device, "--threads", str(args.threads), "--repeats", str(args.repeats)]
            command = [sys.executable, __file__, *flags, "--point", json.dumps({name: size})]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            sized = settings({name: size, "total_epochs": 1, "eval_samples": 1, "final_eval_samples": 1, "oracle_emb_dim": 1})
            work.append(counted(sized))
            estimate = (PROCESS + sum(needed_bytes(sized, torch.get_num_threads()).values())) / 2**20
            text = f"{NAMES[name]} = {size:<6} {rows[-1]['seconds']:>7.3f} s {rows[-1]['mib']:>6.0f} MiB {estimate:>6.0f} MiB"
            if size == sizes[-1]:
                fitted = slope(sizes, [row["seconds"] for row in rows])
                text += f"   {NAMES[name]}: {fitted:.2f} ({slope(sizes, work):.2f})"
            print(text, flush=True)
        curves[name] = (sizes, [row["seconds"] for row in rows], work)
    if args.out:
        draw(curves, Path(args.out))
    return 0


def draw(curves: dict[str, tuple[list[int], list[float], list[float]]], path: Path) -> None:
    """The measured seconds, and the counted work through the middle point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(13, 3.4), sharey=True)
    for ax, (name, (sizes, seconds, work)) in zip(axes, curves.items(), strict=True):
        middle = len(sizes) // 2
        ax.loglog(sizes, seconds, "o-", label="measured")
        ax.loglog(sizes, [w * seconds[middle] / work[middle] for w in work], ":", color="gray", label="counted work")
        ax.set_xlabel(NAMES[name])
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
        ax.set_xticks([], minor=True)
        ax.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel("seconds, rewards of one update")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
