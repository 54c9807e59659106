"""One saved state: what is in its directory, and whether that is what was written. Needs no torch.

    NAME/step-00001000/       one complete state; manifest.json is written last

Two things can be wrong with a file. Damage: it is not what was written, or gone, or the disk fails
under it. Or it cannot be read just now (rights, too many open files): that says nothing about it.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mypt.core.checkpoint.header import read_header
from mypt.durable import sha256_of
from mypt.errors import CheckpointError
from mypt.records.checkpoint import CheckpointManifest, FileInfo, TrainingState
from mypt.records.model import ModelConfig
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec, read_tokenizer_spec

CONFIG_FILE = "config.json"
STATE_FILE = "training_state.json"
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
MANIFEST_FILE = "manifest.json"

WEIGHT_FILES = (CONFIG_FILE, TOKENIZER_FILE, STATE_FILE, MODEL_FILE)
ALL_FILES = (*WEIGHT_FILES, OPTIMIZER_FILE)

# While a step is saved again, its first state bears the second name.
_NAME = re.compile(r"(\.swap-)?step-(\d{8,})")
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}


class DamagedStateError(CheckpointError):
    """A state is not what was written. Other errors of reading say nothing about the state."""


@dataclass(frozen=True, slots=True)
class State:
    """One saved state: a directory that was complete when it was published."""

    path: Path

    @property
    def step(self) -> int:
        """The step in the directory's name."""
        match = _NAME.fullmatch(self.path.name)
        return int(match[2]) if match else 0

    def config(self) -> ModelConfig:
        """The architecture."""
        return ModelConfig.read(self.path / CONFIG_FILE, error=CheckpointError)

    def tokenizer(self) -> TokenizerSpec:
        """The tokenizer."""
        return read_tokenizer_spec(self.path / TOKENIZER_FILE, error=CheckpointError)

    def training(self) -> TrainingState:
        """Progress and hyper-parameters."""
        return TrainingState.read(self.path / STATE_FILE, error=CheckpointError)

    def parameters(self) -> int:
        """Exact number of weights, from the header of the weight file; scales of int8 are none."""
        tensors = read_header(self.path / MODEL_FILE).items()
        return sum(tensor.elements for name, tensor in tensors if not name.endswith(".scale"))

    def weight_bytes(self) -> int:
        """Size of the weight file.

        Raises:
            CheckpointError: when it cannot be read.
        """
        path = self.path / MODEL_FILE
        try:
            return path.stat().st_size
        except OSError as problem:
            raise _unreadable(path, problem) from None

    def is_int8(self) -> bool:
        """Whether the weights are in 8 bits: for generation, not for training."""
        return any(tensor.dtype == "I8" for tensor in read_header(self.path / MODEL_FILE).values())

    def manifest(self) -> CheckpointManifest:
        """The manifest, checked against its own checksum and the directory's name.

        Raises:
            DamagedStateError: when it is not what was written.
            CheckpointError: when it cannot be read, or a later MyPT wrote it.
        """
        path = self.path / MANIFEST_FILE
        try:
            data = path.read_bytes()
        except OSError as problem:
            raise _unreadable(path, problem) from None
        sealed = CheckpointManifest.is_sealed(data)
        error = CheckpointError if sealed else DamagedStateError
        manifest = CheckpointManifest.parse(data, where=str(path), error=error)
        if manifest.step != self.step:
            raise DamagedStateError(f"{self.path}: the manifest belongs to step {manifest.step}")
        return manifest

    def verify(self, names: Sequence[str] = ALL_FILES) -> None:
        """Compare size and hash of each named file with the manifest.

        Raises:
            DamagedStateError: naming the first file that differs.
            CheckpointError: naming the first file that cannot be read.
        """
        for path, problem in self.check(names):
            if problem:
                raise DamagedStateError(f"{path}: {problem}")

    def check(self, names: Sequence[str] | None = None, *, sizes_only: bool = False) -> Iterator[tuple[Path, str]]:
        """Compare files with the manifest, one by one: each file and what is wrong with it.

        Args:
            names: the files; without them all that the manifest lists.
            sizes_only: do not read the files.

        Raises:
            DamagedStateError: when the manifest is not what was written.
            CheckpointError: when a file cannot be read.
        """
        files = self.manifest().files
        for name in sorted(files) if names is None else names:
            # Converted and imported models may have no optimizer.
            if name in files or name != OPTIMIZER_FILE:
                yield self.path / name, _problem(self.path / name, files.get(name), sizes_only=sizes_only)


def state_at(path: Path) -> State | None:
    """The state that a directory's name promises, if it does."""
    return State(path) if _NAME.fullmatch(path.name) else None


def _problem(path: Path, info: FileInfo | None, *, sizes_only: bool) -> str:
    if info is None:
        return "is not in the manifest"
    try:
        size_bytes = path.stat().st_size
        if size_bytes != info.size_bytes:
            return f"has {size_bytes:,} bytes, the manifest says {info.size_bytes:,}"
        if not sizes_only and sha256_of(path) != info.sha256:
            return "is damaged (its sha256 is not the manifest's)"
    except OSError as problem:
        error = _unreadable(path, problem)
        if not isinstance(error, DamagedStateError):
            raise error from None
        return error.message.removeprefix(f"{path}: ")
    return ""


def _unreadable(path: Path, problem: OSError) -> CheckpointError:
    if problem.errno == errno.ENOENT:
        return DamagedStateError(f"{path}: is missing")
    if problem.errno in _DAMAGE:
        return DamagedStateError(f"{path}: is damaged ({problem.strerror})")
    return CheckpointError(
        f"{path}: cannot read it ({problem.strerror or problem})",
        hint="Nothing was changed. When it can be read again, the same command goes on.",
    )
