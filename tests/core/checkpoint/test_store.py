"""States on disk: published whole, verified, set aside when broken, locked, retired."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import ALL_FILES, MANIFEST_FILE, MODEL_FILE
from mypt.core.checkpoint.store import ModelDirectory, checked_name
from mypt.errors import CheckpointError, UsageError
from mypt.records.checkpoint import TrainingState
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, TrainingConfig
from mypt.records.tokenizer import ByteSpec


def contents(step: int, val_loss: float | None = None) -> Contents:
    """A state with tensors of a few numbers: the store does not look into them."""
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
        weights={"weights": torch.full((4,), float(step))},
        moments={"weights/step": torch.tensor(float(step))},
    )


def publish(directory: ModelDirectory, step: int, val_loss: float | None = None) -> None:
    directory.publish(contents(step, val_loss))


def steps(directory: ModelDirectory) -> list[int]:
    return [state.step for state in directory.states()]


def test_a_published_state_verifies(directory: ModelDirectory) -> None:
    publish(directory, 5)
    directory.states()[0].verify()


@pytest.mark.parametrize("name", [*ALL_FILES, MANIFEST_FILE])
def test_every_flipped_bit_is_found(directory: ModelDirectory, name: str) -> None:
    publish(directory, 5)
    path = directory.states()[0].path / name
    whole = path.read_bytes()
    unnoticed = []
    for position in range(0, len(whole) * 8, 3):
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << position % 8
        path.write_bytes(broken)
        try:
            directory.states()[0].verify()
        except CheckpointError:
            continue
        unnoticed.append(position)
    assert unnoticed == []


@pytest.mark.parametrize("name", [*ALL_FILES, MANIFEST_FILE])
def test_every_missing_or_cut_file_is_found(directory: ModelDirectory, name: str) -> None:
    publish(directory, 5)
    path = directory.states()[0].path / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])  # the last brace of JSON goes too
    with pytest.raises(CheckpointError):
        directory.states()[0].verify()
    path.unlink()
    with pytest.raises(CheckpointError):
        directory.states()[0].verify()


def test_a_state_under_another_steps_name_is_found(directory: ModelDirectory) -> None:
    publish(directory, 5)
    directory.states()[0].path.rename(directory.path / "step-00000009")
    with pytest.raises(CheckpointError, match="step 5"):
        directory.states()[0].verify()


def test_the_newest_whole_state_is_used_and_the_broken_one_kept_aside(directory: ModelDirectory) -> None:
    publish(directory, 5)
    publish(directory, 6)
    (directory.path / "step-00000006" / MODEL_FILE).write_bytes(b"other")
    warnings: list[str] = []
    state = directory.newest(ALL_FILES, warnings.append, quarantine=True)
    assert state is not None
    assert state.step == 5
    assert len(warnings) == 1
    assert "step-00000006" in warnings[0]
    assert [path.name for path in directory.path.iterdir() if "broken" in path.name]
    publish(directory, 6)  # the step may be saved again
    assert steps(directory) == [6, 5]


def test_a_reader_renames_nothing(directory: ModelDirectory) -> None:
    publish(directory, 5)
    publish(directory, 6)
    (directory.path / "step-00000006" / MODEL_FILE).write_bytes(b"other")
    before = sorted(path.name for path in directory.path.iterdir())
    directory.newest(ALL_FILES, lambda _: None, quarantine=False)
    assert sorted(path.name for path in directory.path.iterdir()) == before


def test_with_every_state_broken_there_is_one_clear_error(directory: ModelDirectory) -> None:
    publish(directory, 5)
    (directory.path / "step-00000005" / MODEL_FILE).unlink()
    with pytest.raises(CheckpointError, match="none of its 1 states"):
        directory.newest(ALL_FILES, lambda _: None, quarantine=False)


def test_the_newest_two_and_the_best_stay(directory: ModelDirectory) -> None:
    for step, val_loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, 2.7)):
        publish(directory, step, val_loss)
        directory.retire()
    assert steps(directory) == [5, 4, 2]


def test_saving_a_step_again_keeps_the_old_one_aside(directory: ModelDirectory) -> None:
    publish(directory, 5, 1.0)
    publish(directory, 5, 2.0)
    assert directory.states()[0].training().val_loss == 2.0
    assert any("replaced" in path.name for path in directory.path.iterdir())


def test_a_failed_save_leaves_the_previous_states_and_no_leftovers(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(directory, 5)

    def full(_handle: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CheckpointError, match="No space left"):
        publish(directory, 6)
    assert steps(directory) == [5]
    assert [path.name for path in directory.path.iterdir() if path.name.startswith(".tmp")] == []


def test_leftovers_of_a_killed_save_are_cleared_by_the_next(directory: ModelDirectory) -> None:
    publish(directory, 5)
    shutil.copytree(directory.states()[0].path, directory.path / ".tmp-step-00000006-99999")
    publish(directory, 7)
    assert steps(directory) == [7, 5]
    assert not list(directory.path.glob(".tmp-*"))


LOCKING_CHILD = """
import sys
from pathlib import Path
from mypt.core.checkpoint.store import ModelDirectory
from mypt.errors import LockedError
try:
    with ModelDirectory(Path(sys.argv[1]), "model").lock():
        print("taken")
except LockedError as problem:
    print(problem.message)
"""


def lock_in_child(directory: ModelDirectory) -> str:
    command = [sys.executable, "-c", LOCKING_CHILD, str(directory.path.parent)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_a_second_trainer_is_refused_naming_the_first(directory: ModelDirectory) -> None:
    with directory.lock():
        assert f"process {os.getpid()} on {socket.gethostname()}" in lock_in_child(directory)
    assert lock_in_child(directory) == "taken"


@pytest.mark.parametrize(
    "name", ["", "../x", "/x", "~", "a/b", "a\\b", "x" * 65, "con", "NUL.txt", ".hidden", "a\0b", "a b", "x.", "-x"]
)
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        checked_name(name)


@pytest.mark.parametrize("name", ["my_model", "GPT-2.large", "7b", "x" * 64])
def test_plain_names_are_accepted(name: str) -> None:
    assert checked_name(name) == name


@given(st.text(max_size=80))
@settings(max_examples=300)
def test_no_accepted_name_leaves_its_folder(name: str) -> None:
    try:
        checked_name(name)
    except UsageError:
        return
    assert (Path("/root-of-models") / name).resolve().parent == Path("/root-of-models")


def test_a_linked_model_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        ModelDirectory(tmp_path, "model")


def test_the_manifest_lists_every_file(directory: ModelDirectory) -> None:
    publish(directory, 5)
    manifest = json.loads((directory.states()[0].path / MANIFEST_FILE).read_text())
    assert sorted(manifest["files"]) == sorted(ALL_FILES)


def test_with_all_states_set_aside_training_is_refused_again_and_again(directory: ModelDirectory) -> None:
    publish(directory, 5)
    (directory.path / "step-00000005" / MODEL_FILE).unlink()
    for _ in range(3):
        with pytest.raises(CheckpointError, match=r"broken|none of its"):
            directory.newest(ALL_FILES, lambda _: None, quarantine=True)
