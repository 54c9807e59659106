"""Compare the memory estimate of one preset with the measured peak of a training on the CPU, saves included.

    python benchmarks/memory.py PRESET BATCH_SIZE DROPOUT      for example: tiny 16 0.1

One process measures one row: the largest resident size never shrinks.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

from mypt.core.bench.machine import peak_bytes
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.events import RunPlanned
from mypt.records.presets import load_preset
from mypt.records.run import DataConfig

STEPS = 3


def main(name: str, batch_size: int, dropout: float) -> None:
    """Do a few steps on random letters, save each, and print one JSON line."""
    preset = load_preset(name)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(random.Random(1).choices("abcdefgh \n", k=200_000)))
        changes = {"batch_size": batch_size, "max_iters": STEPS, "eval_interval": 100, "save_interval": 1}
        config = preset.model_copy(
            update={
                "model": preset.model.model_copy(update={"dropout": dropout}),
                "training": preset.training.model_copy(update=changes | {"eval_iters": 1, "device": "cpu"}),
                "data": DataConfig(input_files=(str(text),), tokenization="gpt2"),
            }
        )
        events = train(config, ModelDirectory(Path(folder), "model"))
        estimated_bytes = next(event for event in events if isinstance(event, RunPlanned)).memory_bytes
        for _ in events:
            pass
    measured_bytes = peak_bytes()
    row = {"preset": name, "batch_size": batch_size, "dropout": dropout, "measured_bytes": measured_bytes}
    row |= {"estimated_bytes": estimated_bytes, "ratio": round(estimated_bytes / measured_bytes, 3)}
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
