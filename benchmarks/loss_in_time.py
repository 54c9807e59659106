"""The loss that nanoGPT reaches in five minutes of steps on GPT-2 tokens, and ours after a sixth of that time.

    python benchmarks/loss_in_time.py TEXT --nanogpt CHECKOUT [--seconds 300] [--share 6] [--seeds 1 2 3]

Both have four blocks of width 192, GPT-2's vocabulary and 16 x 128 tokens a step. nanoGPT is its own train.py on the
CPU as it ships (fp32, not compiled), at two learning rates with a cosine over as many steps as fill the time; its start
and its evaluations are not counted. Ours is the real command with --for: all is counted, from typing it to the saved
model. Losses are of the last tenth of the text: ours of all of it, nanoGPT's its own estimate from random batches.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from mypt.core.tokens.build import build_tokenizer
from mypt.records.tokenizer import Gpt2Spec

SHAPE = {"n_layer": 4, "n_head": 4, "n_embd": 192, "block_size": 128, "batch_size": 16}
LEARNING_RATES = (3e-4, 1e-3)
DATASET = "gpt2_tokens_of_a_text"
PACE_STEPS = 12
RECIPE = ("--config-file", "tiny", "--family", "modern", "--optimizer", "muon", "--schedule", "wsd", "--dropout", "0")
RECIPE += tuple(
    f"--set={setting}"
    for setting in (
        "model.rope_base=1000",
        "training.warmup_iters=0",
        "training.min_lr_ratio=0",
        "training.grad_clip=0",
        "training.eval_interval=1000000",
        "training.eval_iters=1000",
    )
)


def main() -> None:
    """Print a JSON line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout; a dataset is put into its data folder")
    parser.add_argument("--seconds", type=float, default=300, help="of nanoGPT's steps")
    parser.add_argument("--share", type=float, default=6, help="ours has so many times less")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    options = parser.parse_args()
    checkout = options.nanogpt.resolve()
    prepare(options.text, checkout / "data" / DATASET)
    step_s = median(steps_of(checkout, PACE_STEPS, LEARNING_RATES[0])[0][2:])
    for rate in LEARNING_RATES:
        times_s, val_loss = steps_of(checkout, round(options.seconds / step_s), rate)
        told = {"row": "nanoGPT", "learning_rate": rate, "steps": len(times_s), "seconds": round(sum(times_s))}
        print(json.dumps(told | {"val_loss": val_loss}), flush=True)
    for seed in options.seeds:
        print(
            json.dumps({"row": "mypt", "seed": seed} | ours(options.text, options.seconds / options.share, seed)),
            flush=True,
        )


def ours(text: Path, seconds: float, seed: int) -> dict[str, float]:
    """Train as a user would, for so long; the loss of the last evaluation."""
    command = [sys.executable, "-m", "mypt", "train", str(text.resolve()), *RECIPE, "--json", "--seed", str(seed)]
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--for", f"{seconds:.0f}s"],
            cwd=folder,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    total_s = time.monotonic() - started_s
    events = [json.loads(line) for line in done.stdout.splitlines()]
    evaluated = next(event for event in reversed(events) if event["event"] == "evaluated")
    return {"steps": evaluated["step"], "seconds": round(total_s, 1), "val_loss": evaluated["val_loss"]}


def steps_of(checkout: Path, steps: int, rate: float) -> tuple[list[float], float]:
    """Run nanoGPT's train.py; the seconds of each step, and the validation loss that it prints last."""
    settings = SHAPE | {"device": "cpu", "compile": False, "dataset": DATASET, "dropout": 0.0, "bias": False}
    settings |= {"learning_rate": rate, "min_lr": rate / 10, "warmup_iters": 20, "gradient_accumulation_steps": 1}
    settings |= {
        "max_iters": steps,
        "lr_decay_iters": steps,
        "eval_interval": steps,
        "eval_iters": 50,
        "log_interval": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", f"--out_dir={folder}"]
        command += [f"--{name}={value}" for name, value in settings.items()]
        done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    found = [float(ms) / 1000 for ms in re.findall(r"time ([0-9.]+)ms", done.stdout)]
    # The first and the last of these contain an evaluation.
    return found[1:-1], float(re.findall(r"val loss ([0-9.]+)", done.stdout)[-1])


def prepare(text: Path, folder: Path) -> None:
    """Write the tokens of a text as nanoGPT reads them, the last tenth of its characters for validation."""
    content = text.read_text(encoding="utf-8")
    cut = int(len(content) * 0.9)
    tokenizer = build_tokenizer(Gpt2Spec())
    folder.mkdir(exist_ok=True)
    for name, part in (("train", content[:cut]), ("val", content[cut:])):
        np.array(tokenizer.encode(part), dtype=np.uint16).tofile(folder / f"{name}.bin")


if __name__ == "__main__":
    main()
