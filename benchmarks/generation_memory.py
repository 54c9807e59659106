"""The peak memory of `mypt generate` beside what `mypt params` says.

    python benchmarks/generation_memory.py [--presets tiny small 150M] [--int8]

Each row is the real command in a process of its own, with a model after one step and GPT-2's tokenizer that writes
until its window is full. `--int8` stores the weights in 8 bits first.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRESETS = ("tiny", "small", "150M", "250M")


def main() -> None:
    """Print a JSON line for each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--int8", action="store_true")
    options = parser.parse_args()
    for preset in options.presets:
        with tempfile.TemporaryDirectory() as folder:
            told = report(preset)
            make_model(preset, Path(folder))
            name = "model-int8" if options.int8 else "model"
            if options.int8:
                mypt(Path(folder), "quantize", "model")
            window = told["config"]["block_size"]
            # One token more than fits: the window is full when it ends.
            peak = mypt(Path(folder), "generate", name, "--prompt", "Once", "-n", window, "--quiet")
        estimate = told["generation_int8_memory_bytes" if options.int8 else "generation_memory_bytes"]
        row = {"preset": preset, "int8": options.int8, "measured_mib": round(peak / 2**20)}
        print(
            json.dumps(row | {"estimated_mib": round(estimate / 2**20), "ratio": round(estimate / peak, 3)}), flush=True
        )


def report(preset: str) -> dict[str, Any]:
    """What `mypt params` says."""
    command = [sys.executable, "-m", "mypt", "params", preset, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def make_model(preset: str, folder: Path) -> None:
    """Train the smallest step there is."""
    words = ["the", "model", "reads", "each", "token", "once", "and", "writes", "what", "may", "come", "next"]
    (folder / "text.txt").write_text(" ".join(random.Random(1).choices(words, k=30_000)))
    settings = ["--batch-size", 1, "--max-iters", 1, "--set", "training.eval_iters=1", "--compile", "off"]
    mypt(folder, "train", "text.txt", "--model-name", "model", "--config-file", preset, *settings)


def mypt(folder: Path, *arguments: object) -> int:
    """Run a command; its peak memory in bytes."""
    command = [sys.executable, "-m", "mypt", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mypt {arguments[0]} failed")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
