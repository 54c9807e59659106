"""Saved states that many tests share: whole ones, with tensors of a few numbers."""

import hashlib

import torch

from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import ALL_FILES, State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.records.checkpoint import TrainingState
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, TrainingConfig
from mypt.records.tokenizer import ByteSpec


def contents(step: int, val_loss: float | None = None, *, value: float | None = None) -> Contents:
    """What a state of this step consists of; `value` fills its tensors (the step if not given)."""
    value = float(step) if value is None else value
    return Contents(
        config=ModelConfig(n_layer=1),
        tokenizer=ByteSpec(),
        training=TrainingState(
            model_name="model",
            step=step,
            samples_seen=step,
            training=TrainingConfig(),
            data=DataConfig(),
            val_loss=val_loss,
            val_step=step,
        ),
        weights={"weights": torch.full((4,), value), "bias": torch.full((2,), -value)},
        moments={"weights/exp_avg": torch.full((4,), value / 2), "weights/step": torch.tensor(value)},
    )


def publish(directory: ModelDirectory, step: int, val_loss: float | None = None) -> State:
    """Save a state of this step."""
    return directory.publish(contents(step, val_loss))[0]


def steps(directory: ModelDirectory) -> list[int]:
    """The steps of the published states, newest first."""
    return [state.step for state in directory.states()]


def digest(state: State) -> str:
    """One hash over every file of a state but the manifest."""
    whole = hashlib.sha256()
    for name in ALL_FILES:
        whole.update((state.path / name).read_bytes())
    return whole.hexdigest()
