"""One saved state as a whole: the writing and opening that training, generation and conversion share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mypt.core.checkpoint.store import (
    CONFIG_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    WEIGHT_FILES,
    ModelDirectory,
    State,
    no_such_model,
)
from mypt.core.checkpoint.tensors import load_weights, save_optimizer, save_weights
from mypt.core.model.gpt import GPT
from mypt.records.checkpoint import TrainingState
from mypt.records.model import ModelConfig
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec


def parameter_names(model: nn.Module) -> dict[Tensor, str]:
    """Each parameter's name, by the parameter itself."""
    return {parameter: name for name, parameter in model.named_parameters()}


def write_snapshot(
    directory: Path,
    config: ModelConfig,
    tokenizer: TokenizerSpec,
    state: TrainingState,
    model: nn.Module,
    optimizer: Optimizer | None,
) -> None:
    """Put one complete state into an empty directory (all but the manifest)."""
    config.write(directory / CONFIG_FILE)
    tokenizer.write(directory / TOKENIZER_FILE)
    state.write(directory / STATE_FILE)
    save_weights(model, directory / MODEL_FILE)
    if optimizer is not None and optimizer.state:
        save_optimizer(optimizer, parameter_names(model), directory / OPTIMIZER_FILE)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state opened for reading: its facts, and the weights on demand."""

    state: State
    config: ModelConfig
    tokenizer: TokenizerSpec
    training: TrainingState

    @classmethod
    def of(cls, state: State) -> Self:
        """Read the facts of a state."""
        return cls(state, state.config(), state.tokenizer(), state.training())

    def load(self, device: torch.device) -> GPT:
        """Build the model with these weights."""
        return load_weights(self.config, self.state.path / MODEL_FILE, device)


def open_snapshot(directory: ModelDirectory, warn: Callable[[str], None]) -> Snapshot:
    """Open the newest state whose weights verify, for reading.

    Raises:
        CheckpointError: when there is no such model or no whole state.
    """
    state = directory.newest(WEIGHT_FILES, warn, quarantine=False)
    if state is None:
        raise no_such_model(directory)
    return Snapshot.of(state)
