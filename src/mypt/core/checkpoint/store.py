"""The states of one model on disk: find, publish, lock, retire. Needs no torch.

    NAME/metrics.jsonl        one line per logged step and evaluation, append only
    NAME/step-00001000/       one complete state; manifest.json is written last

A state is written into a temporary sibling, synced, renamed; only then older ones go. A state
that does not verify is set aside and the one before is used.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mypt.core.checkpoint import lock, retention
from mypt.core.checkpoint.state import MANIFEST_FILE, DamagedStateError, State, state_at
from mypt.durable import (
    make_directory,
    name_aside,
    publish_directory,
    remove_directory,
    rename,
    set_aside,
    write_new,
)
from mypt.errors import CheckpointError, UsageError
from mypt.records.checkpoint import CheckpointManifest
from mypt.units import human_bytes

if TYPE_CHECKING:
    from mypt.core.checkpoint.snapshot import Contents

METRICS_FILE = "metrics.jsonl"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


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
        with _told(self.path, "cannot read it"):
            paths = sorted(self.path.iterdir()) if self.path.is_dir() else []
        # A plain name comes after its swapped one, and wins.
        found = {state.step: state for path in paths if (state := state_at(path))}
        return [found[step] for step in sorted(found, reverse=True)]

    def newest(self, names: Sequence[str], warn: Callable[[str], None], *, quarantine: bool) -> State | None:
        """The newest state whose named files verify; None when there is no state at all.

        Args:
            names: the files that will be read.
            warn: told about each broken state.
            quarantine: rename broken states aside. Only the holder of the lock may.

        Raises:
            CheckpointError: when there are states and all are broken, or only a legacy one, or
                when a state cannot be read, which is no reason to pass it over.
        """
        if quarantine:
            self._remove_leftovers()  # of a kill after the last save: a complete run saves nothing any more
            with _told(self.path, "cannot rename its states"):
                self._finish_swaps()
        states, vanished = self.states(), False
        for state in states:
            try:
                state.verify(names)
            except DamagedStateError as problem:
                if not state.path.is_dir():
                    vanished = True  # retired by a running training; newer ones are there
                    continue
                kept = f"kept as {_quarantined(state).name}" if quarantine else "left as it is"
                warn(f"{problem.message}. This state is {kept}; trying the one before it.")
            else:
                return state
        if vanished:
            return self.newest(names, warn, quarantine=quarantine)
        if reason := self.why_nothing(states):
            raise reason
        return None

    def why_nothing(self, states: Sequence[State] = ()) -> CheckpointError | None:
        """Why there is nothing to go on with, where a run had got further: it never begins at step 0 in silence.

        Args:
            states: those that were found broken.
        """
        if states:
            return CheckpointError(
                f"{self.path}: none of its {len(states)} states is whole",
                hint="mypt train --fresh starts anew; the broken states stay.",
            )
        if self.path.is_dir() and any(self.path.glob("step-*.broken-*")):
            return CheckpointError(
                f"{self.path}: its only states were set aside as broken",
                hint="If they are sound after all, rename one back to step-NUMBER; or start anew: mypt train --fresh.",
            )
        if self.has_legacy_files():
            return CheckpointError(
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
            LockedError: naming the process and host that hold it.
        """
        # Beside the model, so that the model's folder can be renamed while it is held.
        with lock.hold(self.path.parent, self.name):
            yield

    def require_unlocked(self) -> None:
        """Refuse early, before anything heavy is loaded, what `lock` would refuse.

        Raises:
            LockedError: naming the process and host that hold it.
        """
        lock.require_free(self.path.parent, self.name)

    def publish(self, contents: "Contents") -> tuple[State, int]:
        """Write a state beside its name, seal it with a manifest, publish it by rename.

        A state of the same step is there until the new one is, and is set aside then.

        Returns:
            The state and its size in bytes.

        Raises:
            CheckpointError: when the disk refuses; the previous states are untouched.
            DivergedError: when a tensor holds what is no number; likewise.
        """
        step = contents.training.step
        final = self.path / f"step-{step:08d}"
        temporary = self.path / f".tmp-step-{step:08d}-{os.getpid()}"
        try:
            make_directory(self.path)
            self._remove_leftovers()
            self._finish_swaps()
            self._require_room(contents.size_bytes)
            temporary.mkdir()
            files = contents.write(temporary)
            manifest = CheckpointManifest(step=step, files=files).sealed()
            write_new(temporary / MANIFEST_FILE, [manifest.as_file().encode()])
            if final.exists():
                rename(final, _swap_name(final))
            publish_directory(temporary, final)
            self._finish_swaps()
        except OSError as problem:
            raise self._cannot_save(Path(problem.filename or final), problem, contents.size_bytes) from None
        finally:
            with suppress(OSError):
                remove_directory(temporary)
        return State(final), sum(info.size_bytes for info in files.values())

    def retire(self, keep_every: int | None = None) -> None:
        """Delete old states; keep the newest two, the one with the best validation loss, and milestones.

        Args:
            keep_every: a state whose step is a multiple of this is never deleted.
        """
        for state in retention.outlived(self.states(), keep_every):
            # Renamed first, durably: a reader finds it whole or not at all, also after a power cut.
            doomed = state.path.with_name(f".tmp-old-{state.path.name}-{os.getpid()}")
            with suppress(OSError):  # an old state that stays costs space, nothing else
                rename(state.path, doomed)
                remove_directory(doomed)

    def set_aside(self) -> Path | None:
        """Rename the whole model out of the way, if there is one. Nothing is deleted."""
        with _told(self.path, "cannot set it aside"):
            has_content = self.path.is_dir() and any(self.path.iterdir())
            return set_aside(self.path, "old") if has_content else None

    def _remove_leftovers(self) -> None:
        for path in self.path.glob(".tmp-*"):
            with suppress(OSError):
                remove_directory(path)

    def _finish_swaps(self) -> None:
        """Give a state that was to be replaced its final name: its own again if nothing took its place."""
        for path in self.path.glob(".swap-*"):
            own = path.with_name(path.name.removeprefix(".swap-"))
            rename(path, name_aside(own, "replaced") if own.exists() else own)

    def _require_room(self, needed_bytes: int) -> None:
        """Refuse to begin what cannot end.

        Raises:
            CheckpointError: when less than `needed_bytes` are free.
        """
        if shutil.disk_usage(self.path).free < needed_bytes:
            raise self._cannot_save(self.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), needed_bytes)

    def _cannot_save(self, path: Path, problem: OSError, needed_bytes: int) -> CheckpointError:
        there = next(each for each in (path, *path.absolute().parents) if each.is_dir())
        free_bytes = shutil.disk_usage(there).free
        room = f"needs {human_bytes(needed_bytes)}, {human_bytes(free_bytes)} free"
        has_states = self.path.is_dir() and bool(self.states())
        return CheckpointError(
            f"{path}: cannot save ({problem.strerror or problem}; {room})",
            hint="The previous checkpoint is intact: make room, and the same command goes on from it."
            if has_states
            else "Nothing was saved before: make room, or choose another place with --checkpoint-dir.",
        )


def model_names(root: Path) -> list[str]:
    """Names of the models under a checkpoint directory."""
    return sorted({path.parent.name for path in root.glob("*/step-*") if state_at(path)})


def no_such_model(directory: ModelDirectory) -> CheckpointError:
    """The error for a name without any state, naming the models that are there."""
    if reason := directory.why_nothing():
        return reason
    others = model_names(directory.path.parent)
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
            message,
            hint="Use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit, with no dot at the "
            "end; and no word that Windows keeps for itself (con, nul, com1, …).",
        )
    return name


@contextmanager
def _told(path: Path, what: str) -> Generator[None]:
    """Say in our words that the system refuses something.

    Raises:
        CheckpointError: instead of the system's own error.
    """
    try:
        yield
    except OSError as problem:
        raise CheckpointError(f"{path}: {what} ({problem.strerror or problem})") from None


def _quarantined(state: State) -> Path:
    with _told(state.path, "is broken, and cannot be set aside"):
        return set_aside(state.path, "broken")


def _swap_name(final: Path) -> Path:
    return final.with_name(f".swap-{final.name}")
