"""Tokens per second and peak memory of training steps, ours beside nanoGPT's, on the CPU.

    python benchmarks/train_step.py --nanogpt CHECKOUT [--shapes tiny char] [--rounds 5]

Every row is a process of its own that does steps for some seconds on random tokens; all rows take turns, so that a
machine whose speed drifts drifts for all. Figures are medians over the rounds, with the least and the most. nanoGPT's
rows are its own model, optimizer and gradient clipping; clone https://github.com/karpathy/nanoGPT for them.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from memory import peak_bytes


class Shape(NamedTuple):
    """What is trained, and on how much at a time."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int
    vocab_size: int


SHAPES = {
    "tiny": Shape(4, 4, 192, 128, 16, 50_304),
    "small": Shape(12, 6, 384, 256, 8, 50_304),
    "char": Shape(4, 4, 128, 64, 12, 65),
    "char6": Shape(6, 6, 384, 256, 16, 65),
}
OURS: dict[str, Literal["fp32", "bf16"]] = {"mypt fp32": "fp32", "mypt bf16": "bf16"}
NANOGPT = {
    "nanogpt fp32": (False, False),
    "nanogpt fp32 compiled": (False, True),
    "nanogpt bf16 compiled": (True, True),
}
WARMUP_STEPS = 3


def main() -> None:
    """Measure all rows of some shapes and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rows", nargs="+", choices=[*OURS, *NANOGPT])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of steps, in each process")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, SHAPES[options.shapes[0]], options.seconds, options.nanogpt)))
        return
    rows = options.rows or [*OURS, *(NANOGPT if options.nanogpt else [])]
    for shape in options.shapes:
        found: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
        for _ in range(options.rounds):
            for row in rows:
                found[row].append(in_a_process(row, shape, options))
        for row, results in found.items():
            speeds = sorted(result["tokens_per_s"] for result in results)
            told: dict[str, Any] = {"shape": shape, "row": row, "tokens_per_s": round(median(speeds))}
            told |= {"least": round(speeds[0]), "most": round(speeds[-1])}
            told["peak_mib"] = round(median(result["peak_bytes"] for result in results) / 2**20)
            print(json.dumps(told), flush=True)


def in_a_process(row: str, shape: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure one row once, with nothing left from others."""
    command = [sys.executable, __file__, "--one", row, "--shapes", shape, "--seconds", str(options.seconds)]
    if options.nanogpt:
        command += ["--nanogpt", str(options.nanogpt)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def measure(row: str, shape: Shape, seconds: float, nanogpt: Path | None) -> dict[str, float]:
    """Do steps for some seconds; tokens per second by the median step."""
    if row in OURS:
        step = our_step(shape, OURS[row])
    else:
        assert nanogpt is not None, "a checkout is needed"
        step = nanogpt_step(shape, nanogpt, *NANOGPT[row])
    for _ in range(WARMUP_STEPS):
        step()
    times_s: list[float] = []
    while sum(times_s) < seconds:
        started_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - started_s)
    tokens = shape.batch_size * shape.block_size
    return {"tokens_per_s": tokens / median(times_s), "peak_bytes": peak_bytes()}


def our_step(shape: Shape, precision: Literal["fp32", "bf16"]) -> Callable[[], None]:
    """A step as `mypt train` does it: batch, forward, backward, clipping, update, and the loss is read."""
    import numpy as np

    from mypt.core.data.splits import Corpus
    from mypt.core.data.stream import MemoryShard, TokenStream
    from mypt.core.device import choose_device, deterministic
    from mypt.core.train.start import Origin, begin
    from mypt.records.model import ModelConfig
    from mypt.records.run import RunConfig, TrainingConfig
    from mypt.records.tokenizer import ByteSpec

    generator = np.random.default_rng(1)
    ids = generator.integers(shape.vocab_size, size=200_000, dtype=np.uint32)
    corpus = Corpus(ByteSpec(), TokenStream([MemoryShard(ids)]), TokenStream([]), "random")
    sizes = shape._asdict()
    batch_size = sizes.pop("batch_size")
    config = RunConfig(model=ModelConfig(**sizes), training=TrainingConfig(batch_size=batch_size, device="cpu"))
    contextlib.ExitStack().enter_context(deterministic())
    session = begin(config, corpus, Origin(), choose_device("cpu", precision))

    def step() -> None:
        session.train_step()
        session.read()

    return step


def nanogpt_step(shape: Shape, checkout: Path, is_bf16: bool, is_compiled: bool) -> Callable[[], None]:  # noqa: FBT001
    """A step as nanoGPT's train.py does it on a CPU; bf16 is autocast."""
    import torch

    sys.path.insert(0, str(checkout))
    with contextlib.redirect_stdout(sys.stderr):
        from model import GPT, GPTConfig  # pyrefly: ignore [missing-import] - the checkout's

        sizes = shape._asdict()
        batch_size = sizes.pop("batch_size")
        model = GPT(GPTConfig(**sizes, dropout=0.0, bias=False))
        optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), "cpu")
    forward = torch.compile(model) if is_compiled else model
    data = torch.randint(shape.vocab_size, (200_000,))

    def step() -> None:
        starts = random.choices(range(len(data) - shape.block_size - 1), k=batch_size)
        inputs, targets = (torch.stack([data[i + by : i + by + shape.block_size] for i in starts]) for by in (0, 1))
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = forward(inputs, targets)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


if __name__ == "__main__":
    main()
