"""One saved state as a whole: the writing and opening that training, generation and conversion share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from mypt.core.checkpoint.state import CONFIG_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, WEIGHT_FILES, State
from mypt.core.checkpoint.store import ModelDirectory, no_such_model
from mypt.core.checkpoint.tensors import Memory, TensorFile, load_weights
from mypt.core.model.gpt import GPT
from mypt.durable import write_new
from mypt.errors import CheckpointError
from mypt.records.checkpoint import FileInfo, TrainingState
from mypt.records.model import ModelConfig
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec

Read = TypeVar("Read")


def parameter_names(model: nn.Module) -> dict[Tensor, str]:
    """Each parameter's name, by the parameter itself."""
    return {parameter: name for name, parameter in model.named_parameters()}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights by name: the tensors themselves, no copies."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def moments_of(memory: Memory, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """An optimizer's memory as PARAMETER/KEY: the tensors themselves, no copies."""
    return {
        f"{names[parameter]}/{key}": value.detach() for parameter, kept in memory.items() for key, value in kept.items()
    }


@dataclass(frozen=True, slots=True)
class Contents:
    """What one state consists of, before it is on the disk. Tensors may be on any device."""

    config: ModelConfig
    tokenizer: TokenizerSpec
    training: TrainingState
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    """The optimizer's memory; empty where there is none."""

    @property
    def size_bytes(self) -> int:
        """Exact size of all files but the manifest."""
        texts = sum(len(text) for text in self._texts().values())
        return texts + sum(file.size_bytes for file in self._tensor_files().values())

    def write(self, directory: Path) -> dict[str, FileInfo]:
        """Put one complete state into an empty directory (all but the manifest), file by file to the disk.

        Raises:
            OSError: when the disk refuses.
            DivergedError: naming a tensor with NaN or infinity.
        """
        written = {name: write_new(directory / name, [text]) for name, text in self._texts().items()}
        for name, file in self._tensor_files().items():
            written[name] = write_new(directory / name, file.chunks())
        return {name: FileInfo(size_bytes=file.size_bytes, sha256=file.sha256) for name, file in written.items()}

    def _texts(self) -> dict[str, bytes]:
        records = {CONFIG_FILE: self.config, TOKENIZER_FILE: self.tokenizer, STATE_FILE: self.training}
        return {name: record.as_file().encode() for name, record in records.items()}

    def _tensor_files(self) -> dict[str, TensorFile]:
        files = {MODEL_FILE: TensorFile(self.weights)}
        return files | ({OPTIMIZER_FILE: TensorFile(self.moments)} if self.moments else {})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state opened for reading: its facts, and the weights on demand."""

    state: State
    config: ModelConfig
    tokenizer: TokenizerSpec
    training: TrainingState

    @classmethod
    def of(cls, state: State) -> Self:
        """Read the facts of a state.

        Raises:
            CheckpointError: when they do not belong together.
        """
        snapshot = cls(state, state.config(), state.tokenizer(), state.training())
        rows, ids = snapshot.config.vocab_size, snapshot.tokenizer.vocab_size
        if rows < ids:
            raise CheckpointError(f"{state.path}: the tokenizer has {ids:,} ids, the model a vocabulary of {rows:,}")
        if snapshot.training.step != state.step:
            raise CheckpointError(f"{state.path}: {STATE_FILE} belongs to step {snapshot.training.step}")
        return snapshot

    @property
    def name(self) -> str:
        """What the model is called: its folder, which may have been renamed since it was trained."""
        return self.state.path.parent.name

    def load(self, device: torch.device) -> GPT:
        """Build the model with these weights, to be used as it is."""
        return load_weights(self.config, self.state.path / MODEL_FILE, device, trains=False).eval()


def open_snapshot(directory: ModelDirectory, warn: Callable[[str], None]) -> Snapshot:
    """Open the newest state whose weights verify, for reading.

    Raises:
        CheckpointError: when there is no such model or no whole state.
    """
    return read_newest(directory, lambda snapshot: snapshot, warn)


def read_newest(directory: ModelDirectory, read: Callable[[Snapshot], Read], warn: Callable[[str], None]) -> Read:
    """Read the newest state whose weights verify, and again if a running training retires it meanwhile.

    Raises:
        CheckpointError: when there is no such model or no whole state.
    """
    while True:
        state = directory.newest(WEIGHT_FILES, warn, quarantine=False)
        if state is None:
            raise no_such_model(directory)
        try:
            return read(Snapshot.of(state))
        except CheckpointError:
            if state.path.is_dir():
                raise
