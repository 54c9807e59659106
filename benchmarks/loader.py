"""What the loader costs: opening, the first batch, tokens per second, and its part of a training step.

    python benchmarks/loader.py [PRESET]      default: small; on the device that training would take

The dataset is 500 million random ids in 5 shards (1 GB of disk while it runs). Beside it the usual
way, random windows from one memory map, is measured on the same files in turns with ours, each from
the page cache. `wait` is what a step waits for its batch; `work` is all that the loader does for one.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from mypt import __version__
from mypt.core.data.batches import Batches
from mypt.core.data.opened import open_dataset
from mypt.core.data.splits import Corpus
from mypt.core.device import choose_device
from mypt.core.tokens.build import build_tokenizer
from mypt.core.train.feed import Feed
from mypt.core.train.start import Origin, begin
from mypt.durable import sha256_of
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo
from mypt.records.presets import load_preset
from mypt.records.run import RunConfig
from mypt.records.tokenizer import TOKENIZER_FILE, ByteSpec, Gpt2Spec

SHARDS, SHARD_TOKENS = 5, 100_000_000
# Ids of bytes: opening is then ours alone. GPT-2's table is measured apart.
VOCABULARY = 257
ROUNDS = 300
STEPS = 6


def main(preset: str) -> None:
    """Print one JSON object."""
    config = load_preset(preset)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root)
        row = {"preset": preset, "tokens": SHARDS * SHARD_TOKENS} | started(root, config)
        read = reading(root, config)
        print(json.dumps(row | read | stepping(root, config, read["batch_ms"]), indent=2))


def write_dataset(root: Path) -> None:
    """500 million random ids with a manifest."""
    chance = np.random.default_rng(0)
    shards: list[ShardInfo] = []
    for number in range(SHARDS):
        chance.integers(0, VOCABULARY, SHARD_TOKENS, dtype=np.uint16).tofile(root / f"{number}.bin")
        shards.append(ShardInfo(path=f"{number}.bin", dtype="uint16", tokens=SHARD_TOKENS))
    ByteSpec().write(root / TOKENIZER_FILE)
    DatasetManifest(
        mypt_version=__version__,
        tokenizer_sha256=sha256_of(root / TOKENIZER_FILE),
        vocab_size=VOCABULARY,
        end_of_text_id=None,
        split_by="given",
        sources=(),
        train=tuple(shards),
        val=(),
    ).sealed().write(root / DATASET_FILE)


def started(root: Path, config: RunConfig) -> dict[str, float]:
    """Milliseconds to open and to the first batch; the tokenizer's table apart."""
    table_ms = timed_ms(lambda: build_tokenizer(Gpt2Spec()))
    opened: list[Corpus] = []
    open_ms = timed_ms(lambda: opened.append(open_dataset(root)))
    batches = Batches(opened[0].train, config.model.block_size, seed=1)
    first_ms = timed_ms(lambda: batches.at(0, config.training.batch_size))
    return {
        "gpt2_table_ms": round(table_ms, 1),
        "open_ms": round(open_ms, 1),
        "first_batch_ms": round(first_ms, 2),
    }


def reading(root: Path, config: RunConfig) -> dict[str, float]:
    """A batch of ours against one of random windows from memory maps."""
    size, block_size = config.training.batch_size, config.model.block_size
    batches = Batches(open_dataset(root).train, block_size, seed=1)
    chance = np.random.default_rng(1)

    def mapped() -> None:
        ids = np.memmap(root / f"{chance.integers(SHARDS)}.bin", dtype=np.uint16, mode="r")
        starts = chance.integers(0, len(ids) - block_size, size)
        np.stack([ids[start : start + block_size].astype(np.int64) for start in starts])
        np.stack([ids[start + 1 : start + 1 + block_size].astype(np.int64) for start in starts])

    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(ROUNDS):
        ours.append(timed_ms(lambda at=turn * size: batches.at(at, size)))
        theirs.append(timed_ms(mapped))
    batch_ms = sum(ours) / ROUNDS  # the mean: it holds the blocks of the order, which come now and then
    return {
        "batch_ms": round(batch_ms, 3),
        "tokens_per_s": round(size * block_size / batch_ms * 1000),
        "memory_map_batch_ms": round(sum(theirs) / ROUNDS, 3),
        "ratio_to_memory_map": round(median(ours) / median(theirs), 2),
    }


def stepping(root: Path, config: RunConfig, batch_ms: float) -> dict[str, object]:
    """How long a training step is, and how long it waits for its batch while the one before is at work."""
    device = choose_device()
    corpus = open_dataset(root)
    config = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": 50_304})})
    session = begin(config, corpus, Origin(), device)
    size = config.training.batch_size
    feed = Feed(Batches(corpus.train, config.model.block_size, seed=1).at, device)
    waits_ms: list[float] = []
    steps_ms: list[float] = []
    for step in range(STEPS + 1):
        waits_ms.append(timed_ms(lambda at=step * size: feed.take(at, size)))
        steps_ms.append(timed_ms(lambda: (session.train_step(), session.read())))
    feed.close()
    session.close()
    # The first ones warm up.
    wait_ms, step_ms = median(waits_ms[1:]), median(steps_ms[1:])
    return {
        "device": device.label,
        "step_ms": round(step_ms, 1),
        "wait_ms": round(wait_ms, 3),
        "wait_share_of_step": round(wait_ms / step_ms, 5),
        "work_share_of_step": round(batch_ms / step_ms, 5),
    }


def timed_ms(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    started_s = time.perf_counter()
    work()
    return (time.perf_counter() - started_s) * 1000


if __name__ == "__main__":
    main(*sys.argv[1:] or ["small"])
