"""How long the hot parts take, against plain versions and against their matrix products alone.

`python benchmarks/run.py` times all parts, `python benchmarks/run.py rewards` one. Each part, its plain version and its products
run in turn in one process; times drift on shared machines, so the figures to trust are the ratios.

The products alone are the least that the counted work can take: each part's matrix products at their own shapes, nothing else. The
roll-outs' run on as many threads as the roll-outs, one product a thread; the others on all threads together.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import plain
import torch
from torch import Tensor

import updates
from data_loader import make_data
from fast import native
from fast.completion_scores import CompletionScorer, tables_are_faster
from fast.completions import completions
from fast.cuda_graphs import WARM_UP
from fast.decoder import Decoder
from rewards import discriminator_values
from running.flags import BY_NAME, preset_settings
from support.command_line import Parser, boolean, whole
from support.device import choose_device, describe_device
from support.errors import exit_with_one_line
from support.files import write_json
from support.random_streams import stream
from support.threads import run_all, set_up
from train import adversarial_epoch
from train_state import TrainState, make_state

PRESETS = ("original", "paper")
SAMPLES = 10_000
Product = tuple[int, int, int, float]  # (M, K) times (K, N), how often


class Part(NamedTuple):
    """What is timed: the fast version, the plain one, and its matrix products."""

    fast: Callable[[], object]
    plain: Callable[[], object]
    products: list[Product]
    pooled: bool = False  # one product a thread


class Setting:
    """The models, data and sequences that the parts of one preset share; some of the preset's settings may be changed."""

    def __init__(self, preset: str, device: torch.device, **changes: object):
        self.args = args = argparse.Namespace(**preset_settings(preset) | changes)
        args.eval_samples, args.train_size = 100, min(args.train_size, 10 * args.batch_size)
        self.device = device
        self.state: TrainState = make_state(args, device)
        self.data = make_data(args, device)
        self.data.runner = self.state.runner
        self.rng = stream(1, "benchmark")
        self.device_rng = torch.Generator(device).manual_seed(1)  # torch.multinomial draws on the models' device
        self.tokens = self.state.generator.sample(args.batch_size, args.seq_len, self.rng)
        # the plain versions train their own copies
        self.conv = plain.ConvDiscriminator(self.state.discriminator)
        self.conv_adam = torch.optim.Adam(self.conv.parameters(), lr=args.d_lr)
        self.plain_state = make_state(args, device)
        self.plain_adam = torch.optim.Adam([p for p in self.plain_state.generator.parameters() if p.requires_grad], lr=args.g_lr)

    def labels(self) -> Tensor:
        """Classes at random, (B,). Constant labels would be learnt, and D's gradients become denormals, which slow down a CPU."""
        return torch.randint(2, (self.args.batch_size,), device=self.device)

    def rollout_products(self) -> list[Product]:
        """One product with the output layer and one with the recurrent weights for each token that is drawn."""
        args = self.args
        rows = Decoder(self.state.policy, 10**9).sampler.max_rows
        steps = args.batch_size * args.rollout_num * args.seq_len * (args.seq_len - 1) / 2
        hidden = args.g_hidden_dim
        return [(rows, hidden, args.vocab_size, steps / rows), (rows, hidden, 4 * hidden, steps / rows)]

    def d_products(self, sequences: int, times: float, embedded: bool = True) -> list[Product]:
        """D's products for a batch of sequences: windows with filters, and the two of the highway layer."""
        products: list[Product] = []
        total = 0
        for width, layer in self.state.discriminator.convolutions.items():
            windows = self.args.seq_len - int(width) + 1
            total += layer.out_features
            if embedded:
                products.append((sequences * windows, layer.in_features, layer.out_features, times))
        return [*products, (sequences, total, 2 * total, times)]


def rollouts(s: Setting) -> Part:
    """The completions of one update."""
    n = s.args.rollout_num
    return Part(
        lambda: completions(s.state.policy, s.tokens, n, s.rng, s.state.runner),
        lambda: plain.plain_action_values(
            s.state.policy, lambda x: torch.zeros(len(x), device=x.device), s.tokens, n, s.device_rng
        ),
        s.rollout_products(),
        pooled=s.device.type == "cpu",
    )


def scoring(s: Setting) -> Part:
    """D on all completions of one update; the plain version scores a batch for each prefix and roll-out."""
    n, d = s.args.rollout_num, s.state.discriminator
    completed = completions(s.state.policy, s.tokens, n, s.rng)  # (T - 1, B, N, T)

    def fast() -> object:
        if not tables_are_faster(d, completed[..., 0].numel(), s.args.seq_len):
            return d.prob_real(completed.flatten(0, 2))
        scorer = CompletionScorer(d, s.tokens)
        return run_all([partial(scorer, t + 1, part) for t, part in enumerate(completed)], s.device)

    def one_by_one() -> object:
        return [s.conv.prob_real(completed[t, :, i]) for t in range(len(completed)) for i in range(n)]

    return Part(fast, one_by_one, s.d_products(512, completed[..., 0].numel() / 512))


def rewards(s: Setting) -> Part:
    """The rewards of one update: roll-outs and scores."""
    n = s.args.rollout_num
    return Part(
        lambda: discriminator_values(s.tokens, s.state, s.data, s.args),
        lambda: plain.plain_action_values(s.state.policy, s.conv.prob_real, s.tokens, n, s.device_rng),
        [*s.rollout_products(), *scoring(s).products],
    )


def d_update(s: Setting) -> Part:
    """One update of D: forward, backward (two products for each of the forward's), optimiser."""
    s.state.discriminator.train()
    return Part(
        lambda: s.state.runner.run("discriminator", partial(updates.discriminator_update, s.state, s.args), s.tokens, s.labels()),
        lambda: plain.discriminator_update(s.conv, s.conv_adam, s.tokens, s.labels()),
        s.d_products(s.args.batch_size, 3),
    )


def mle_update(s: Setting) -> Part:
    """One update of maximum likelihood."""
    tokens, args = s.tokens, s.args
    return Part(
        lambda: s.state.runner.run("maximum likelihood", partial(updates.mle_update, s.state, args), tokens),
        lambda: plain.mle_update(s.plain_state.generator, s.plain_adam, tokens, args.grad_clip),
        [(tokens.numel(), args.g_hidden_dim, args.vocab_size, 3)],
    )


def sampling(s: Setting) -> Part:
    """10,000 sequences."""
    args, model = s.args, s.state.generator
    rows = Decoder(model, 10**9).sampler.max_rows
    return Part(
        lambda: s.state.sample(SAMPLES, args.seq_len, "negatives"),
        lambda: plain.plain_sample(model, SAMPLES, args.seq_len, s.device_rng),
        [(rows, args.g_hidden_dim, args.vocab_size, SAMPLES * args.seq_len / rows)],
        pooled=s.device.type == "cpu",
    )


def epoch(s: Setting) -> Part:
    """A whole adversarial epoch; of the 5 × 3 passes over 20,000 sequences of `paper`, 1/16 are timed, plain and fast."""
    args = s.args
    d_batches = args.d_steps * args.d_epochs * (2 * args.train_size // args.batch_size if args.train_size else 1)

    def fast() -> object:
        return adversarial_epoch(s.state, s.data, args)

    def slow() -> object:
        tokens = plain.plain_sample(s.state.generator, args.batch_size, args.seq_len, s.device_rng)
        plain.plain_action_values(s.state.policy, s.conv.prob_real, tokens, args.rollout_num, s.device_rng)
        plain.mle_update(s.plain_state.generator, s.plain_adam, tokens, args.grad_clip)
        for _ in range(args.d_steps):
            plain.plain_sample(s.state.generator, args.train_size or args.batch_size, args.seq_len, s.device_rng)
        for _ in range(d_batches):
            plain.discriminator_update(s.conv, s.conv_adam, s.tokens, s.labels())

    products = [*rewards(s).products, *s.d_products(args.batch_size, 3 * d_batches), *mle_update(s).products]
    return Part(fast, slow, products)


PARTS: dict[str, Callable[[Setting], Part]] = {
    part.__name__: part for part in (rollouts, scoring, rewards, d_update, mle_update, sampling, epoch)
}


def timed(call: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Seconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / times


def products_seconds(part: Part, device: torch.device) -> float:
    """The matrix products of a part, alone."""
    threads = torch.get_num_threads() if part.pooled else 1
    total = 0.0
    for m, k, n, times in part.products:

        def multiply(a: Tensor, b: Tensor, out: Tensor, repeats: int) -> None:
            for _ in range(repeats):
                torch.mm(a, b, out=out)

        repeats = max(1, min(round(times / threads), int(2e9 / (m * k * n)) + 1))
        operands = [(torch.rand(m, k, device=device), torch.rand(k, n, device=device)) for _ in range(threads)]
        calls = [partial(multiply, a, b, torch.empty(m, n, device=device), repeats) for a, b in operands]
        run = partial(run_all, calls, device)
        run()
        total += min(timed(run, device) for _ in range(3)) / (repeats * threads) * times
    return total


def measure(name: str, setting: Setting, repeats: int) -> dict[str, float | str]:
    """Median seconds of the fast and the plain version and of the products, and the ratios, round by round."""
    part = PARTS[name](setting)
    once = max(min(timed(part.fast, setting.device) for _ in range(WARM_UP + 2)), 1e-6)  # warm-up, and recording on CUDA
    times = max(1, min(50, int(0.2 / once)))
    fast, slow, alone = [], [], []
    for _ in range(repeats):
        fast.append(timed(part.fast, setting.device, times))
        slow.append(timed(part.plain, setting.device, times if once < 0.05 else 1))
        alone.append(products_seconds(part, setting.device))
    speedups = [a / b for a, b in zip(slow, fast, strict=True)]
    return {
        "part": name,
        "plain_s": statistics.median(slow),
        "fast_s": statistics.median(fast),
        "products_s": statistics.median(alone),
        "speedup": statistics.median(speedups),
        "speedup_min": min(speedups),
        "speedup_max": max(speedups),
        "over_products": statistics.median(a / b for a, b in zip(fast, alone, strict=True)),
    }


@exit_with_one_line
def main() -> int:
    """The command."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--preset", choices=PRESETS, action="append", help="which sizes (default: both)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=whole(0), default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--repeats", type=whole(1), default=3, help="rounds, of which the median counts (default: %(default)s)")
    parser.add_argument(
        "--d_precision", choices=BY_NAME["d_precision"].type, default="float32", help="of D's updates (default: %(default)s)"
    )
    parser.add_argument(
        "--cuda_graphs", type=boolean, default=True, help="on CUDA: record operations and replay them (default: %(default)s)"
    )
    parser.add_argument(
        "--native_draws", choices=BY_NAME["native_draws"].type, default="auto", help="as of main.py (default: %(default)s)"
    )
    parser.add_argument("--sharpen", type=float, default=1.0, help="multiply the generator's output weights (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers as JSON as well")
    args = parser.parse_args()
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"no part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    set_up(args.threads)
    device = choose_device(args.device)
    native.set_up(args.native_draws, device)
    draws = native.choice().words
    where = {"device": describe_device(device), "draws": draws, "python": platform.python_version(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    print(
        f"{'preset':<8} {'part':<9} {'plain':>10} {'fast':>10} {'products':>10}   {'plain / fast (min to max)':<28} fast / products"
    )
    changes = {"d_precision": args.d_precision, "cuda_graphs": args.cuda_graphs}
    rows = []
    for preset in args.preset or PRESETS:
        setting = Setting(preset, device, **changes)
        with torch.no_grad():
            for model in (setting.state.generator, setting.state.policy):
                model.output.weight.mul_(args.sharpen)
        for name in args.parts or PARTS:
            row = measure(name, setting, args.repeats)
            rows.append({"preset": preset, **row})
            times = " ".join(f"{1000 * row[key]:>7.1f} ms" for key in ("plain_s", "fast_s", "products_s"))
            ratio = f"{row['speedup']:.1f}x ({row['speedup_min']:.1f} to {row['speedup_max']:.1f})"
            print(f"{preset:<8} {name:<9} {times}   {ratio:<28} {row['over_products']:.2f}x", flush=True)
    where["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory {where['peak_memory_mib']} MiB")
    if args.json:
        write_json(Path(args.json), {**where, **changes, "threads": torch.get_num_threads(), "sharpen": args.sharpen, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
