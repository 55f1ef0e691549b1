"""How long the rewards of one generator update take, against the plain nested loop: `python benchmarks/rollouts.py`.

The plain loop runs every prefix anew for every roll-out and draws with torch.multinomial, as ports of SeqGAN usually do. Both
see the same models and sequences in one process, alternating; the figure to trust is the ratio.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from reference import plain_action_values

from main import choose_device
from options import PRESETS, preset_settings
from rollout import completions
from run_log import describe_device
from streams import stream
from train import discriminator_values, make_state


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(preset: str, device: torch.device, repeats: int) -> dict[str, float | str]:
    """Median seconds of the plain loop, of the rewards and of their roll-outs alone, and the ratio."""
    args = argparse.Namespace(**preset_settings(preset))
    state = make_state(args, device)
    rng = stream(1, "benchmark")
    tokens = state.generator.sample(args.batch_size, args.seq_len, rng)
    score, n = state.discriminator.prob_real, args.rollout_num
    # the plain loop draws on the models' device
    plain_rng = torch.Generator(device).manual_seed(1)
    calls = {
        "plain_s": lambda: plain_action_values(state.policy, score, tokens, n, plain_rng),
        "rewards_s": lambda: discriminator_values(state, tokens, n),
        "rollouts_s": lambda: completions(state.policy, tokens, n, rng),
    }
    for name in ("rewards_s", "rollouts_s"):  # warm-up; the plain loop is long enough without one
        calls[name]()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call, device))
    result: dict[str, float | str] = {name: statistics.median(values) for name, values in times.items()}
    ratios = [plain / fast for plain, fast in zip(times["plain_s"], times["rewards_s"], strict=True)]
    return {"preset": preset, **result, "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


def main() -> int:
    """The command; prints a table, and JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, action="append", help="which sizes (default: default and paper)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the median counts (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    rows = [measure(preset, device, args.repeats) for preset in args.preset or ("default", "paper")]
    where = {"device": describe_device(device), "machine": platform.machine(), "torch": torch.__version__}
    where["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if args.json:
        print(json.dumps({**where, "rows": rows}, indent=2))
        return 0
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    print(f"{'preset':<8} {'plain loop':>11} {'rewards':>9} {'roll-outs':>10}   ratio (min to max)")
    for row in rows:
        times = f"{row['plain_s']:>9.2f} s {row['rewards_s']:>7.3f} s {row['rollouts_s']:>8.3f} s"
        print(f"{row['preset']:<8} {times}   {row['ratio']:.1f}x ({row['ratio_min']:.1f} to {row['ratio_max']:.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
