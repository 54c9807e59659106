"""The validation loss at the end of a run in narrower numbers beside that of the same run in fp32.

    python benchmarks/precision.py TEXT [--presets char-quick] [--precisions bf16] [--seeds 1 2 3] [--set training.…=…]

Each run is the real command in a process of its own; precisions take turns at the same seed. A difference is the
narrower run's loss less that of fp32: it should be within 0.01. What other seeds give in fp32 says how much that is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASELINE = "fp32"


def main() -> None:
    """Print a JSON line for each run, and one for each preset and precision at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--presets", nargs="+", default=["char-quick"])
    parser.add_argument("--precisions", nargs="+", default=["bf16"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], help="as of mypt train, e.g. training.optimizer=adamw")
    options = parser.parse_args()
    for preset in options.presets:
        differences: dict[str, list[float]] = {precision: [] for precision in options.precisions}
        for seed in options.seeds:
            baseline = trained(options.text, preset, BASELINE, seed, options.set)
            for precision, found in differences.items():
                found.append(trained(options.text, preset, precision, seed, options.set) - baseline)
        for precision, found in differences.items():
            row = {"preset": preset, "precision": precision, "differences": [round(each, 4) for each in found]}
            print(json.dumps(row | {"largest": round(max(map(abs, found)), 4)}), flush=True)


def trained(text: Path, preset: str, precision: str, seed: int, settings: list[str]) -> float:
    """Train as a user would; the loss of the last evaluation."""
    command = [sys.executable, "-m", "mypt", "train", str(text.resolve()), "--config-file", preset, "--json"]
    command += ["--precision", precision, "--seed", str(seed)]
    command += [word for setting in settings for word in ("--set", setting)]
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    loss = next(event["val_loss"] for event in reversed(events) if event["event"] == "evaluated")
    row = {"preset": preset, "precision": precision, "seed": seed, "val_loss": loss}
    print(json.dumps(row | {"seconds": round(time.monotonic() - started_s, 1)}), flush=True)
    return loss


if __name__ == "__main__":
    main()
