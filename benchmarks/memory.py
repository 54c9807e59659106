"""Compare the memory estimate of one preset with the measured peak of its training step, on the CPU.

    python benchmarks/memory.py PRESET BATCH_SIZE DROPOUT      for example: tiny 16 0.1

One process measures one row: the largest resident size never shrinks.
"""

import json
import resource
import sys

import torch

from mypt.core.model.gpt import GPT
from mypt.core.train.optimizer import build_optimizer
from mypt.records.budget import training_memory
from mypt.records.presets import load_preset

STEPS = 3


def main(name: str, batch_size: int, dropout: float) -> None:
    """Do a few steps of random tokens and print one JSON line."""
    preset = load_preset(name)
    config = preset.model.model_copy(update={"dropout": dropout})
    model = GPT(config).train()
    optimizer = build_optimizer(model, preset.training)
    ids_BT = torch.randint(0, 50_257, (batch_size, config.block_size))
    for _ in range(STEPS):
        loss = model.loss(ids_BT, ids_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    measured_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    estimated_bytes = training_memory(config, batch_size).peak
    row = {"preset": name, "batch_size": batch_size, "dropout": dropout, "measured_bytes": measured_bytes}
    row |= {"estimated_bytes": estimated_bytes, "ratio": round(estimated_bytes / measured_bytes, 3)}
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
