"""Seconds from typing a command to a trained model of characters, and its loss: ours, and nanoGPT's recipe for CPUs.

    python benchmarks/time_to_loss.py TEXT [--nanogpt CHECKOUT] [--presets char-quick char] [--seeds 1 2 3]

Each run is the real command in a process of its own, start-up and evaluation included; the rows take turns. Our loss
is that of the whole validation split, the last tenth of the text. nanoGPT's is its own estimate, from random batches of
the same tenth. Its settings are those that its README gives for a CPU; its text is prepared before the clock starts.
"""

import argparse
import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NANOGPT = "--device=cpu --compile=False --eval_iters=20 --log_interval=100 --block_size=64 --batch_size=12 --n_layer=4"
NANOGPT += " --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
PEER = "nanoGPT"
DATASET = "chars_of_a_text"


def main() -> None:
    """Print a JSON line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT; a dataset is put into its data folder")
    parser.add_argument("--presets", nargs="*", default=["char-quick"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    options = parser.parse_args()
    if options.nanogpt:
        prepare(options.text, options.nanogpt / "data" / DATASET)
    for seed in options.seeds:
        for name in [*options.presets, *([PEER] if options.nanogpt else [])]:
            started_s = time.monotonic()
            val_loss = theirs(options.nanogpt.resolve()) if name == PEER else ours(options.text, name, seed)
            row = {"row": name, "seed": seed, "seconds": round(time.monotonic() - started_s, 1), "val_loss": val_loss}
            print(json.dumps(row), flush=True)


def ours(text: Path, preset: str, seed: int) -> float:
    """Train as a user would; the loss of the last evaluation."""
    command = [sys.executable, "-m", "mypt", "train", str(text.resolve()), "--config-file", preset, "--json"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--seed", str(seed)], cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return next(event["val_loss"] for event in reversed(events) if event["event"] == "evaluated")


def theirs(checkout: Path) -> float:
    """Run nanoGPT's train.py, which has a seed of its own; the validation loss that it prints last."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *NANOGPT.split()]
        command += [f"--dataset={DATASET}", f"--out_dir={folder}"]
        done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return float(re.findall(r"val loss ([0-9.]+)", done.stdout)[-1])


def prepare(text: Path, folder: Path) -> None:
    """Write the characters of a text as nanoGPT reads them."""
    content = text.read_text(encoding="utf-8")
    ids = {character: number for number, character in enumerate(sorted(set(content)))}
    numbers = np.array([ids[character] for character in content], dtype=np.uint16)
    folder.mkdir(exist_ok=True)
    cut = int(len(numbers) * 0.9)
    numbers[:cut].tofile(folder / "train.bin")
    numbers[cut:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(ids)}))


if __name__ == "__main__":
    main()
