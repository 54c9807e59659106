"""Compare the memory estimate of one preset with the measured peak of a training on the CPU, saves included.

    python benchmarks/memory.py PRESET [BATCH_SIZE] [DROPOUT] [--micro-batch-size N] [--family NAME] [--optimizer NAME]
        [--precision NAME] [--checkpoint-activations]

What is left out is the preset's own. One process measures one row: the largest resident size never shrinks.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from mypt.core.bench.machine import peak_bytes
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.events import RunPlanned
from mypt.records.presets import find_config
from mypt.records.resolve import Layer, dotted_layer, resolve
from mypt.records.run import RunConfig

STEPS = 3


def main() -> None:
    """Do a few steps on random letters, save each, and print one JSON line."""
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(random.Random(1).choices("abcdefgh \n", k=200_000)))
        config = run_config(arguments, str(text))
        # The vocabulary is the preset's, as `mypt params` counts it, and not that of ten letters.
        events = train(config, ModelDirectory(Path(folder), "model"), keep_vocab_size=True)
        plan = next(event for event in events if isinstance(event, RunPlanned))
        for _ in events:
            pass
    measured_bytes = peak_bytes()
    row = {key: value for key, value in vars(arguments).items() if value is not None}
    row |= {"batch_size": config.training.batch_size, "dropout": config.model.dropout}
    row |= {"measured_bytes": measured_bytes, "estimated_bytes": plan.memory_bytes}
    print(json.dumps(row | {"ratio": round(plan.memory_bytes / measured_bytes, 3)}))


def read_arguments() -> argparse.Namespace:
    """What is to be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("batch_size", type=int, nargs="?")
    parser.add_argument("dropout", type=float, nargs="?")
    parser.add_argument("--micro-batch-size", type=int)
    parser.add_argument("--family")
    parser.add_argument("--optimizer")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--checkpoint-activations", action="store_true", default=None)
    parser.add_argument("--compile")
    return parser.parse_args()


def run_config(arguments: argparse.Namespace, text: str) -> RunConfig:
    """The preset with the changes that were asked for, three steps long."""
    changes: dict[str, Any] = {"model.dropout": arguments.dropout, "model.family": arguments.family}
    for name in ("batch_size", "micro_batch_size", "optimizer", "precision", "checkpoint_activations", "compile"):
        changes[f"training.{name}"] = getattr(arguments, name)
    changes |= {"training.max_iters": STEPS, "training.eval_interval": 100, "training.eval_iters": 1}
    changes |= {"training.save_interval": 1, "training.device": "cpu", "data.input_files": [text]}
    given = {key: value for key, value in changes.items() if value is not None}
    preset = Layer(*find_config(arguments.preset), is_whole=True)
    return resolve([preset, dotted_layer("arguments", given)], where="arguments").config


if __name__ == "__main__":
    main()
