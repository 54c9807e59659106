"""The JSON files of a checkpoint: training_state.json and manifest.json."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mypt.records.base import Record
from mypt.records.checksum import SealedRecord
from mypt.records.run import DataConfig, TrainingConfig


class LossScaleState(Record, frozen=True):
    """By what fp16's gradients are multiplied while they are small."""

    factor: float = Field(2.0**16, ge=1, description="A power of two.")
    held_steps: int = Field(0, ge=0, description="Steps in a row in which it was not too large.")


class TrainingState(Record, frozen=True):
    """Everything, beside tensors, that the next step depends on.

    The data order and dropout are functions of (seed, position) and (seed, step), so these few
    numbers are the whole state of both.
    """

    format_version: Literal[1] = 1
    model_name: str
    step: int = Field(ge=0, description="Optimizer updates done.")
    samples_seen: int = Field(ge=0, description="Windows consumed: the position in the data order.")
    training: TrainingConfig
    data: DataConfig
    data_fingerprint: str = Field("", description="Identifies the training tokens.")
    initialized_from: str | None = Field(None, description="Model whose weights were the start.")
    loss: float | None = Field(None, description="Training loss of the last step, nats per token.")
    val_loss: float | None = Field(None, description="Last validation loss, nats per token.")
    val_step: int | None = Field(None, description="Step of that validation loss.")
    bits_per_byte: float | None = None
    best_val_loss: float | None = Field(None, description="Lowest validation loss so far.")
    best_step: int | None = Field(None, description="Step of that lowest validation loss.")
    evaluations_since_best: int = Field(0, ge=0, description="Evaluations since then.")
    skipped_steps: tuple[int, ...] = Field((), description="Steps left out: their loss or gradient was no number.")
    loss_scale: LossScaleState | None = Field(None, description="Of a run in fp16.")
    versions: dict[str, str] = Field(default_factory=dict, description="What else the bits depend on.")


_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def _sibling(name: str) -> str:
    """Accept the plain name of a file in the same folder, on every system."""
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no plain file name")
    return name


class FileInfo(Record, frozen=True):
    """Size and hash of one file."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class CheckpointManifest(SealedRecord, frozen=True):
    """manifest.json: written last, so a directory that has one is complete."""

    format_version: Literal[1] = 1
    step: int = Field(ge=0)
    files: dict[Annotated[str, AfterValidator(_sibling)], FileInfo]
