"""Compare the memory of prepare-dataset with the size of its text: the text should be over ten times as large.

    python benchmarks/prepare_memory.py [--megabytes 1500] [--workers 2] [--encoder auto]

The text is one line of 200 MB without an end, and JSON lines for the rest. What is measured is the
largest resident size of any of the processes, interpreter and libraries included (Linux only).
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

LINE_BYTES = 200 * 10**6
WORDS = ["the", "a", "model", "token", "shard", "batch", "step", "river", "house", "loss", "reads", "writes", "counts"]


# Each process tells its own peak when it ends.
MEASURE = """
import atexit, os, pathlib
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path(os.environ["PEAKS"], str(os.getpid())).write_text(status.split("VmHWM:")[1].split()[0])
atexit.register(peak)
"""


def main() -> None:
    """Write the text, prepare it, and print both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--encoder", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text_bytes = write_text(folder / "texts", options.megabytes * 10**6)
        arguments = ["texts", "--out-dir", "data", "--workers", str(options.workers), "--encoder", options.encoder]
        peak_bytes = max(peaks(folder, arguments))
    print(f"{text_bytes / 1e6:,.0f} MB of text, largest process {peak_bytes / 2**20:,.0f} MiB")
    print(f"the text is {text_bytes / peak_bytes:.1f} times as large")


def write_text(folder: Path, wanted_bytes: int) -> int:
    """Write a line that does not end, and records; gives the bytes of both."""
    folder.mkdir()
    chance = random.Random(7)
    blocks = [" ".join(chance.choices(WORDS, k=200_000)) for _ in range(4)]
    with (folder / "line.txt").open("w", encoding="utf-8") as file:
        while file.tell() < LINE_BYTES:
            file.write(chance.choice(blocks) + " ")
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        while file.tell() < wanted_bytes - LINE_BYTES:
            start = chance.randrange(900_000)
            file.write('{"text": "' + chance.choice(blocks)[start : start + 4000] + '"}\n')
    return sum(path.stat().st_size for path in folder.iterdir())


def peaks(folder: Path, arguments: list[str]) -> list[int]:
    """The largest resident size of every process of one command, in bytes."""
    for made in ("site", "peaks"):
        (folder / made).mkdir()
    (folder / "site/sitecustomize.py").write_text(MEASURE)
    search = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "mypt", "prepare-dataset", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": search, "PEAKS": str(folder / "peaks")},
        check=True,
    )
    return [1024 * int(path.read_text()) for path in (folder / "peaks").iterdir()]


if __name__ == "__main__":
    main()
