"""How much memory a run will need, computed from its sizes before it starts.

The parts that grow with the sizes are computed: weights with their gradients and Adam's two moments, data, the buffers of the
roll-outs and of the scoring, and evaluation. The memory of a process with torch and no model is a measured number.
"""

from __future__ import annotations

import argparse
import os

import torch

from data_sources import SOURCES
from discriminator import scoring_rows
from fast import categorical
from fast.completion_scores import TABLE_BYTES
from fast.cross_entropy import GRADIENTS
from fast.kernel import CHUNK
from metrics import SEQUENCES_AT_ONCE, SEQUENCES_OF_A_THREAD
from train_state import policy_batch

FLOAT, WHOLE = 4, 8  # bytes of a float32; of an int64 or a float64
# Python, torch and TensorBoard, before any model; a build for CUDA loads its libraries also where it computes on the CPU
PROCESS = (320 if torch.version.cuda is None else 580) * 2**20


def needed_bytes(args: argparse.Namespace, threads: int) -> dict[str, int]:
    """Bytes by purpose, on a CPU: most of them, though not all, are allocated at the same time."""
    v, t, b, n = args.vocab_size, args.seq_len, args.batch_size, args.rollout_num
    g = v * (args.g_emb_dim + args.g_hidden_dim + 1) + 4 * args.g_hidden_dim * (args.g_emb_dim + args.g_hidden_dim + 2)
    numbers = sum(number for _, number in args.d_filters)
    places = sum(width * number for width, number in args.d_filters)
    d = v * args.d_emb_dim + places * args.d_emb_dim + 2 * numbers**2
    e, h = args.oracle_emb_dim, args.oracle_hidden_dim
    oracle = v * (e + h + 1) + 4 * h * (e + h + 2) if SOURCES[args.dataset].has_oracle else 0
    chunk = max(categorical.DRAW_ELEMENTS["cpu"], v) + max(categorical.CHUNK_ELEMENTS["cpu"], v)
    m = policy_batch(args)
    completions = (t - 1) * m * n
    table = FLOAT * v * places
    windows = sum((t - width + 1) * (width * args.d_emb_dim + number) for width, number in args.d_filters)
    needed = {
        # G: weights, β, gradient and its buffer, two optimisers with two moments each, and the reference of --kl_weight
        "models": FLOAT * (g * (9 if args.kl_weight else 8) + d * 4 + oracle),
        "data": WHOLE * t * (args.train_size * 3 + 2 * max(args.eval_samples, args.final_eval_samples)),
        "training of G": FLOAT * (max(GRADIENTS, CHUNK * v) + max(b, m) * t * (2 * args.g_emb_dim + 12 * args.g_hidden_dim)),
        "drawing": FLOAT * threads * chunk + FLOAT * v * (args.g_hidden_dim + 2) * 2,
        "evaluation": FLOAT
        * max(SEQUENCES_AT_ONCE, threads * SEQUENCES_OF_A_THREAD)
        * t
        * (args.g_emb_dim + 6 * args.g_hidden_dim),
    }
    if args.total_epochs:
        needed["training of D"] = 3 * FLOAT * b * windows
        needed["roll-outs"] = 2 * WHOLE * completions * t + WHOLE * completions * t // 2
        tables_fit = table <= TABLE_BYTES
        rows = scoring_rows(t, args.d_filters, args.d_emb_dim, "cpu")
        scored = threads * 2 * m * n * numbers * t if tables_fit else 2 * rows * windows
        needed["scoring"] = (table + FLOAT * m * t * places if tables_fit else 0) + FLOAT * scored
    return needed


def summary(args: argparse.Namespace, threads: int) -> str:
    """One line for the start of a run on a CPU."""
    needed = needed_bytes(args, threads)
    total = PROCESS + sum(needed.values())
    largest = max(needed, key=lambda name: needed[name])
    text = f"needs about {total / 2**30:.1f} GiB of memory"
    if needed[largest] > PROCESS:
        text += f" (most of it: {largest}, {needed[largest] / 2**30:.1f} GiB)"
    if total > (there := machine_bytes()):
        text += f"; this machine has {there / 2**30:.1f} GiB"
    return text


def machine_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
