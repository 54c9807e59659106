"""What a training spends beside its steps: waiting for batches, evaluating, saving, logging.

    python benchmarks/overhead.py TEXT [--presets char-quick tiny] [--steps 500] [--dropout 0 …]

What it does not know is for `mypt train`. Each preset is the real command in a process of its own, whose events are
read as they come. Prints a JSON line for each: seconds of the run, and the share of each part, as `finished` tells
them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Train each preset and print where its time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--presets", nargs="+", default=["tiny"])
    parser.add_argument("--steps", type=int, help="the preset's own number if not given")
    options, more = parser.parse_known_args()
    for preset in options.presets:
        command = [sys.executable, "-m", "mypt", "train", str(options.text.resolve()), "--config-file", preset]
        command += ["--json", *(["--max-iters", str(options.steps)] if options.steps else []), *more]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        end = json.loads(done.stdout.splitlines()[-1])
        whole_s = end["elapsed_s"]
        shares = {part: round(seconds / whole_s, 5) for part, seconds in end["spent_s"].items()}
        row = {"preset": preset, "steps": end["step"], "run_s": round(whole_s, 1)}
        print(json.dumps(row | {"beside_steps": round(1 - shares["steps"], 5), "shares": shares}))


if __name__ == "__main__":
    main()
