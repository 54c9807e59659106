"""States on disk: published whole, verified, set aside when broken, locked, retired."""

import errno
import json
import math
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disks import in_child
from mypt.core.checkpoint.state import ALL_FILES, MANIFEST_FILE, MODEL_FILE
from mypt.core.checkpoint.store import ModelDirectory, checked_name
from mypt.errors import CheckpointError, DivergedError, UsageError
from states import contents, publish, steps


def test_a_published_state_verifies(directory: ModelDirectory) -> None:
    publish(directory, 5)
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


REFUSALS = [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO]


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=errno.errorcode.get)
def test_a_refused_save_says_why_and_what_it_needs_and_leaves_all_as_it_was(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch, call: str, refusal: int
) -> None:
    publish(directory, 5)
    before = sorted(directory.path.rglob("*"))

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(CheckpointError, match=re.escape(os.strerror(refusal))) as caught:
            publish(directory, 6)
    assert re.search(r"step-00000006.*; needs [\d.]+ KiB, [\d.]+ [KMGT]iB free", caught.value.message)
    assert sorted(directory.path.rglob("*")) == before
    publish(directory, 6)


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing_of_the_save(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(directory, 5)
    before = sorted(directory.path.rglob("*"))
    write, room = os.write, 2000

    def limited(handle: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(handle, data[:room])
        room -= taken
        return taken

    monkeypatch.setattr(os, "write", limited)
    with pytest.raises(CheckpointError, match="No space left"):
        publish(directory, 6)
    assert room == 0
    assert sorted(directory.path.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="the system has no such limit")
def test_a_file_that_grows_beyond_the_systems_limit_is_told(directory: ModelDirectory) -> None:
    publish(directory, 5)

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(CheckpointError, match=r"File too large; needs [\d.]+ KiB"):
            publish(directory, 6)

    assert in_child(limited) == 0
    assert sorted(path.name for path in directory.path.iterdir()) == ["step-00000005"]


REFUSED_READINGS = {
    "the folder cannot be read": (("listdir", "scandir"), False, "cannot read it"),
    "the broken state cannot be renamed": (("rename",), True, "step-00000006: is broken, and cannot be set aside"),
}


@pytest.mark.parametrize("fault", REFUSED_READINGS)
def test_a_refusal_while_looking_for_states_is_told_and_not_passed_over(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    publish(directory, 5)
    (publish(directory, 6).path / MODEL_FILE).unlink()
    before = sorted(directory.path.rglob("*"))

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    calls, quarantine, message = REFUSED_READINGS[fault]
    with monkeypatch.context() as patched:
        for call in calls:
            patched.setattr(os, call, refuse)
        with pytest.raises(CheckpointError, match=f"{message} .Read-only file system"):
            directory.newest(ALL_FILES, lambda _: None, quarantine=quarantine)
    assert sorted(directory.path.rglob("*")) == before


def test_a_save_that_cannot_fit_is_not_begun(directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(directory, 5)
    needed = contents(6).size_bytes

    def nearly_full(_path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=needed - 1)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    monkeypatch.setattr(Path, "mkdir", pytest.fail)
    with pytest.raises(CheckpointError, match=r"No space left on device; needs [\d.]+ KiB, [\d.]+ KiB free"):
        publish(directory, 6)


def test_the_size_that_is_asked_for_is_the_size_that_is_written(directory: ModelDirectory) -> None:
    state, size_bytes = directory.publish(contents(5))
    written = sum(path.stat().st_size for path in state.path.iterdir() if path.name != MANIFEST_FILE)
    assert written == size_bytes == contents(5).size_bytes


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["weights", "moments"])
def test_what_is_no_number_is_never_saved(directory: ModelDirectory, part: str, value: float) -> None:
    publish(directory, 5)
    before = sorted(directory.path.rglob("*"))
    spoilt = contents(6)
    name, tensor = next(iter(getattr(spoilt, part).items()))
    tensor[2] = value
    with pytest.raises(DivergedError, match=name):
        directory.publish(spoilt)
    assert sorted(directory.path.rglob("*")) == before


def test_milestones_stay(directory: ModelDirectory) -> None:
    for step in range(1, 9):
        publish(directory, step, 10.0 - step)
        directory.retire(keep_every=3)
    assert steps(directory) == [8, 7, 6, 3]


def test_without_a_validation_loss_no_state_is_the_best(directory: ModelDirectory) -> None:
    for step in range(1, 6):
        publish(directory, step)
        directory.retire()
    assert steps(directory) == [5, 4]


def test_a_disk_that_keeps_something_else_is_found_out(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is that of what was to be written, not of what can be read."""
    write = os.write

    def lying(handle: int, data: memoryview) -> int:
        return write(handle, bytes(data).replace(b"\x40", b"\x41"))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lying)
        publish(directory, 2)
    with pytest.raises(CheckpointError):
        directory.states()[0].verify()


def test_a_broken_state_that_was_being_replaced_is_set_aside_under_its_own_name(directory: ModelDirectory) -> None:
    publish(directory, 5)
    publish(directory, 6).path.rename(directory.path / ".swap-step-00000006")
    (directory.path / ".swap-step-00000006" / MODEL_FILE).unlink()
    state = directory.newest(ALL_FILES, lambda _: None, quarantine=True)
    assert state is not None
    assert state.step == 5
    assert len(list(directory.path.glob("step-00000006.broken-*"))) == 1


def test_leftovers_of_a_killed_save_are_cleared_by_the_next(directory: ModelDirectory) -> None:
    publish(directory, 5)
    shutil.copytree(directory.states()[0].path, directory.path / ".tmp-step-00000006-99999")
    publish(directory, 7)
    assert steps(directory) == [7, 5]
    assert not list(directory.path.glob(".tmp-*"))


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
