"""Tokens per second of generation, ours beside nanoGPT's and transformers', in turns.

    python benchmarks/generation.py [--nanogpt CHECKOUT] [--shapes tiny 150M] [--new 100] [--rounds 3] [--busy 1]

Random weights, a prompt of 16 tokens, temperature 0.8, top-k 200. Each contender is a process of its own; per row the
median of the rounds, and what it is of each peer's. transformers takes part where it is installed, nanoGPT where a
checkout is named. `x16` writes 16 texts side by side. `--busy 1` has another program compute all the while.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# L, H, C, T; all with a vocabulary of 50,304.
SHAPES = {"tiny": (4, 4, 192, 128), "small": (12, 6, 384, 256), "150M": (16, 12, 768, 256)}
VOCABULARY, PROMPT_TOKENS = 50_304, 16
_FEWEST_TEXTS = 3
OURS = [f"mypt {kind}{texts}" for texts in ("", " x16") for kind in ("fp32", "bf16", "int8")]


def main() -> None:
    """Print a JSON line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny", "150M"])
    parser.add_argument("--new", type=int, default=100, help="tokens of a text")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each process, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", default="auto", help="of mypt: auto, on or off")
    parser.add_argument("--busy", type=int, default=0, help="other programs that compute meanwhile")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, shape = options.child
        print(json.dumps(measured(name, shape, options)))
        return
    peers = (["nanoGPT"] if options.nanogpt else []) + (
        ["transformers"] if importlib.util.find_spec("transformers") else []
    )
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        for shape in options.shapes:
            compare(shape, peers, options.rounds)
    finally:
        for other in others:
            other.kill()


def compare(shape: str, peers: Sequence[str], rounds: int) -> None:
    """Measure all contenders in turns."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in [*peers, *OURS]}
    for _ in range(rounds):
        for name, found in rows.items():
            found.append(in_a_process(name, shape))
    medians = {name: statistics.median(row["tokens_per_s"] for row in found) for name, found in rows.items()}
    for name, found in rows.items():
        speeds = [row["tokens_per_s"] for row in found]
        ratios = {f"x {peer}": round(medians[name] / medians[peer], 2) for peer in peers if peer != name}
        told = {"shape": shape, "name": name, "tokens_per_s": round(medians[name], 1)}
        told |= {"least": round(min(speeds), 1), "most": round(max(speeds), 1)}
        print(json.dumps(told | {"peak_mib": round(max(row["peak_mib"] for row in found))} | ratios), flush=True)


def in_a_process(name: str, shape: str) -> dict[str, float]:
    """Measure one contender in a process of its own."""
    command = [sys.executable, "-W", "ignore", *sys.argv, "--child", name, shape]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, shape: str, options: argparse.Namespace) -> dict[str, float]:
    """Write texts until the time is over; the first one only warms up."""
    with contextlib.redirect_stdout(io.StringIO()):
        write = build(name, shape, options)
        write()
        speeds: list[float] = []
        ends_s = time.monotonic() + options.seconds
        while len(speeds) < _FEWEST_TEXTS or time.monotonic() < ends_s:
            began_s = time.perf_counter()
            tokens = write()
            speeds.append(tokens / (time.perf_counter() - began_s))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tokens_per_s": statistics.median(speeds), "peak_mib": peak_mib}


def build(name: str, shape: str, options: argparse.Namespace) -> Callable[[], int]:
    """What writes a text, or several, and gives the number of its tokens."""
    if name.startswith("mypt"):
        return ours(name, shape, options)
    import torch

    L, H, C, T = SHAPES[shape]
    torch.manual_seed(0)
    prompt = torch.randint(VOCABULARY, (1, PROMPT_TOKENS))
    new = options.new
    if name == "nanoGPT":
        sys.path.insert(0, str(options.nanogpt))
        from model import GPT, GPTConfig  # pyrefly: ignore [missing-import] - of the checkout

        model = GPT(GPTConfig(block_size=T, vocab_size=VOCABULARY, n_layer=L, n_head=H, n_embd=C, bias=False)).eval()
        return lambda: len(model.generate(prompt, new, temperature=0.8, top_k=200)[0]) - PROMPT_TOKENS
    from transformers import GPT2Config, GPT2LMHeadModel

    settings: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": T, "n_embd": C, "n_layer": L, "n_head": H}
    model = GPT2LMHeadModel(GPT2Config(**settings, bos_token_id=0, eos_token_id=None, pad_token_id=0)).eval()
    wanted: dict[str, Any] = {"min_new_tokens": new, "max_new_tokens": new, "do_sample": True, "top_k": 200}
    mask = torch.ones_like(prompt)

    def write() -> int:
        with torch.inference_mode():
            return len(model.generate(prompt, attention_mask=mask, temperature=0.8, **wanted)[0]) - PROMPT_TOKENS

    return write


def ours(name: str, shape: str, options: argparse.Namespace) -> Callable[[], int]:
    """As `mypt generate` does it, text included."""
    from mypt.core import wait_awake

    wait_awake()
    import torch

    from mypt.core.device import NARROW, choose_device
    from mypt.core.generate.compiled import choose_reader
    from mypt.core.generate.stream import generate
    from mypt.core.heap import keep_freed_memory
    from mypt.core.model.gpt import GPT
    from mypt.core.model.int8 import quantize
    from mypt.core.tokens.byte import ByteTokenizer
    from mypt.events import Generated
    from mypt.records.model import ModelConfig
    from mypt.records.sampling import SamplingConfig

    class Wide(ByteTokenizer):
        """Bytes, and as many ids as the peers choose among."""

        vocab_size = VOCABULARY

        def decode_bytes(self, token_id: int) -> bytes:
            return b"abcdefgh"[token_id % 8 : token_id % 8 + 1]

    L, H, C, T = SHAPES[shape]
    keep_freed_memory()
    torch.manual_seed(0)
    config = ModelConfig(n_layer=L, n_head=H, n_embd=C, block_size=T, vocab_size=VOCABULARY)
    model = GPT(config).eval().requires_grad_(False)  # noqa: FBT003 - torch's own
    kind = name.split()[1]
    if kind == "int8":
        quantize(model)
    elif kind in NARROW:
        model.to(NARROW[kind])
    tokenizer, device = Wide(), choose_reader(choose_device("cpu", "fp32"), options.compile)
    samples = 16 if name.endswith("x16") else 1
    settings = SamplingConfig(max_new_tokens=options.new, top_k=200, num_samples=samples)

    def write() -> int:
        events = generate(model, tokenizer, ["x" * PROMPT_TOKENS], settings, device)
        return sum(len(event.token_ids) for event in events if isinstance(event, Generated))

    return write


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
