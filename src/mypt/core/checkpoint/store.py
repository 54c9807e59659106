"""The states of one model on disk: find, verify, publish, lock, retire. Needs no torch.

    NAME/metrics.jsonl        one line per logged step and evaluation, append only
    NAME/step-00001000/       one complete state; manifest.json is written last

A state is written into a temporary sibling, synced, renamed; only then older ones go. A state
that does not verify is set aside and the one before is used.
"""

import math
import os
import re
import shutil
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mypt.core.checkpoint.header import read_header
from mypt.durable import make_directory, publish_directory, set_aside, sha256_of, sync_file
from mypt.errors import CheckpointError, ModelLockedError, MyptError, UsageError
from mypt.records.checkpoint import CheckpointManifest, FileInfo, TrainingState
from mypt.records.model import ModelConfig
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec, read_tokenizer_spec

CONFIG_FILE = "config.json"
STATE_FILE = "training_state.json"
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
MANIFEST_FILE = "manifest.json"
METRICS_FILE = "metrics.jsonl"

WEIGHT_FILES = (CONFIG_FILE, TOKENIZER_FILE, STATE_FILE, MODEL_FILE)
ALL_FILES = (*WEIGHT_FILES, OPTIMIZER_FILE)
KEPT_STATES = 2

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STEP = re.compile(r"step-(\d{8,})")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True, slots=True)
class State:
    """One saved state: a directory that was complete when it was published."""

    path: Path

    @property
    def step(self) -> int:
        """The step in the directory's name."""
        match = _STEP.fullmatch(self.path.name)
        return int(match[1]) if match else 0

    def config(self) -> ModelConfig:
        """The architecture."""
        return ModelConfig.read(self.path / CONFIG_FILE, error=CheckpointError)

    def tokenizer(self) -> TokenizerSpec:
        """The tokenizer."""
        return read_tokenizer_spec(self.path / TOKENIZER_FILE, error=CheckpointError)

    def training(self) -> TrainingState:
        """Progress and hyper-parameters."""
        return TrainingState.read(self.path / STATE_FILE, error=CheckpointError)

    def manifest(self) -> CheckpointManifest:
        """The manifest, checked against its own checksum."""
        return CheckpointManifest.read(self.path / MANIFEST_FILE, error=CheckpointError)

    def parameters(self) -> int:
        """Exact number of weights, from the header of the weight file."""
        return sum(tensor.elements for tensor in read_header(self.path / MODEL_FILE).values())

    def verify(self, names: Sequence[str] = ALL_FILES) -> None:
        """Compare size and hash of each named file with the manifest.

        Raises:
            CheckpointError: naming the first file that differs.
        """
        manifest = self.manifest()
        if manifest.step != self.step:
            raise CheckpointError(f"{self.path}: the manifest belongs to step {manifest.step}")
        for name in names:
            info = manifest.files.get(name)
            if info is None:
                if name == OPTIMIZER_FILE:
                    continue  # converted and imported models may have none
                raise CheckpointError(f"{self.path / name}: not in the manifest")
            path = self.path / name
            if not path.is_file():
                raise CheckpointError(f"{path}: missing")
            if path.stat().st_size != info.size_bytes or sha256_of(path) != info.sha256:
                raise CheckpointError(f"{path}: damaged (size or sha256 differs from the manifest)")


class ModelDirectory:
    """All states of one model, under `root/name`."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = checked_name(name)
        self.path = root / self.name
        if self.path.is_symlink():
            raise UsageError(f"{self.path}: a symbolic link, refused")

    @property
    def metrics_path(self) -> Path:
        """Where logged steps and evaluations go."""
        return self.path / METRICS_FILE

    def states(self) -> list[State]:
        """Published states, newest first. Their files are not read."""
        if not self.path.is_dir():
            return []
        found = [State(path) for path in self.path.iterdir() if _STEP.fullmatch(path.name)]
        return sorted(found, key=lambda state: state.step, reverse=True)

    def newest(self, names: Sequence[str], warn: Callable[[str], None], *, quarantine: bool) -> State | None:
        """The newest state whose named files verify; None when there is no state at all.

        Args:
            names: the files that will be read.
            warn: told about each broken state.
            quarantine: rename broken states aside. Only the holder of the lock may.

        Raises:
            CheckpointError: when there are states and all are broken, or only a legacy one.
        """
        states, vanished = self.states(), False
        for state in states:
            try:
                state.verify(names)
            except MyptError as problem:
                if not state.path.is_dir():
                    vanished = True  # retired by a running training; newer ones are there
                    continue
                kept = f"kept as {set_aside(state.path, 'broken').name}" if quarantine else "left as it is"
                warn(f"{problem.message}. This state is {kept}; trying the one before it.")
            else:
                return state
        if vanished:
            return self.newest(names, warn, quarantine=quarantine)
        if states:
            raise CheckpointError(
                f"{self.path}: none of its {len(states)} states is whole",
                hint="Start anew with --fresh; the broken states stay.",
            )
        if self.path.is_dir() and any(self.path.glob("step-*.broken-*")):
            # Never begin at step 0 in silence where a run had got further.
            raise CheckpointError(
                f"{self.path}: its only states were set aside as broken",
                hint="If they are sound after all, rename one back to step-NUMBER; or start anew with --fresh.",
            )
        if self.has_legacy_files():
            raise CheckpointError(
                f"{self.path}: holds a checkpoint of the original MyPT",
                hint=f"Convert it: mypt convert-legacy --model-name {self.name}",
            )
        return None

    def has_legacy_files(self) -> bool:
        """Whether the folder holds .pt files of the original program."""
        return self.path.is_dir() and any(self.path.glob("*.pt"))

    @contextmanager
    def lock(self) -> Generator[None]:
        """Hold the model for training. The system frees the lock when the process dies.

        Raises:
            ModelLockedError: naming the process and host that hold it.
        """
        root = self.path.parent
        try:
            make_directory(root)
        except OSError as problem:
            raise CheckpointError(f"{root}: cannot keep models here ({problem.strerror or problem})") from None
        # Beside the model, so that the model's folder can be renamed while it is held.
        lock = FileLock(root / f".{self.name}.lock", timeout=0)
        owner = root / f".{self.name}.lock-owner"
        try:
            lock.acquire()
        except Timeout:
            holder = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
            raise ModelLockedError(
                f"{self.path}: in use by {holder}", hint="Wait for it to end, or train under another --model-name."
            ) from None
        try:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def publish(self, step: int, write: Callable[[Path], None]) -> tuple[State, int]:
        """Write a state beside its name, seal it with a manifest, publish it by rename.

        Args:
            step: names the state; an existing state of that step is set aside first.
            write: puts all files but the manifest into the directory it is given.

        Returns:
            The state and its size in bytes.

        Raises:
            CheckpointError: when the disk refuses; the previous states are untouched.
        """
        final = self.path / f"step-{step:08d}"
        temporary = self.path / f".tmp-step-{step:08d}-{os.getpid()}"
        try:
            make_directory(self.path)
            self._remove_leftovers()
            temporary.mkdir()
            write(temporary)
            size_bytes = _seal(temporary, step)
            if final.exists():
                set_aside(final, "replaced")
            publish_directory(temporary, final)
        except OSError as problem:
            free = shutil.disk_usage(self.path).free if self.path.is_dir() else 0
            raise CheckpointError(
                f"{problem.filename or final}: cannot save ({problem.strerror or problem}; {free:,} bytes free)",
                hint="The previous checkpoint is intact.",
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return State(final), size_bytes

    def retire(self) -> None:
        """Delete old states; keep the newest two and the one with the best validation loss."""
        states = self.states()
        best = min(states, key=_val_loss, default=None)
        for state in states[KEPT_STATES:]:
            if state != best:
                # Renamed first: a reader finds it whole or not at all.
                doomed = state.path.with_name(f".tmp-old-{state.path.name}-{os.getpid()}")
                with suppress(OSError):  # an old state that stays costs space, nothing else
                    state.path.rename(doomed)
                    shutil.rmtree(doomed)

    def set_aside(self) -> Path | None:
        """Rename the whole model out of the way, if there is one. Nothing is deleted."""
        has_content = self.path.is_dir() and any(self.path.iterdir())
        return set_aside(self.path, "old") if has_content else None

    def _remove_leftovers(self) -> None:
        for path in self.path.glob(".tmp-*"):
            shutil.rmtree(path, ignore_errors=True)


def model_names(root: Path) -> list[str]:
    """Names of the models under a checkpoint directory."""
    return sorted({state.parent.name for state in root.glob("*/step-*")})


def no_such_model(directory: ModelDirectory) -> CheckpointError:
    """The error for a name without any state, naming the models that are there."""
    root = directory.path.parent
    others = model_names(root)
    hint = (
        f"Models here: {', '.join(others)}" if others else f"Train one: mypt train TEXT --model-name {directory.name}"
    )
    return CheckpointError(f"{directory.path}: no model of this name", hint=hint)


def checked_name(name: str) -> str:
    """Accept a model name that is one plain folder name on every system.

    Raises:
        UsageError: otherwise.
    """
    if not _NAME.fullmatch(name) or name.lower().split(".")[0] in _WINDOWS_DEVICES or name.endswith("."):
        message = f"model name {name[:80]!r}: not allowed"
        raise UsageError(
            message, hint="Use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit."
        )
    return name


def _seal(directory: Path, step: int) -> int:
    """Sync every file and write the manifest; give the total size in bytes."""
    files = {}
    for path in sorted(directory.iterdir()):
        sync_file(path)
        files[path.name] = FileInfo(size_bytes=path.stat().st_size, sha256=sha256_of(path))
    CheckpointManifest(step=step, files=files).sealed().write(directory / MANIFEST_FILE)
    return sum(info.size_bytes for info in files.values())


def _val_loss(state: State) -> float:
    """The loss that was measured at this very state; infinite where there is none."""
    try:
        training = state.training()
    except MyptError:
        return math.inf
    return training.val_loss if training.val_loss is not None and training.val_step == state.step else math.inf
