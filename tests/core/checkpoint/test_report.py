"""What is told of a model: all its states, which are whole, what was set aside, what it costs on the disk."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mypt.core.checkpoint import report
from mypt.core.checkpoint.report import report_model
from mypt.core.checkpoint.state import CONFIG_FILE, MANIFEST_FILE, MODEL_FILE, State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.errors import CheckpointError
from mypt.records.reports import StateEntry
from states import publish
from support import Mypt


@pytest.fixture
def three(directory: ModelDirectory) -> list[State]:
    """States at steps 6, 5 and 4; that of step 5 is the best."""
    for step, val_loss in ((4, 3.0), (5, 1.0), (6, 2.0)):
        publish(directory, step, val_loss)
    return directory.states()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def entries(directory: ModelDirectory) -> list[StateEntry]:
    return list(report_model(directory).states)


def disk_use(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def test_all_states_are_told_with_loss_size_and_the_best(three: list[State], directory: ModelDirectory) -> None:
    told = entries(directory)
    assert [(each.step, each.val_loss, each.best) for each in told] == [
        (6, 2.0, False),
        (5, 1.0, True),
        (4, 3.0, False),
    ]
    assert [each.size_bytes for each in told] == [disk_use(state.path) for state in three]
    assert [(each.whole, each.problem) for each in told] == [(True, "")] * 3


def test_without_a_measured_loss_none_is_the_best(directory: ModelDirectory) -> None:
    publish(directory, 1)
    assert [(each.val_loss, each.best) for each in entries(directory)] == [(None, False)]


def test_whole_means_every_byte_is_what_was_written(three: list[State], directory: ModelDirectory) -> None:
    flip(three[1].path / MODEL_FILE)
    told = entries(directory)
    assert [each.whole for each in told] == [True, False, True]
    assert told[1].problem == "model.safetensors: is damaged (its sha256 is not the manifest's)"


@pytest.mark.parametrize("damaged", [CONFIG_FILE, MODEL_FILE, MANIFEST_FILE])
def test_a_model_whose_newest_state_is_broken_is_described_by_the_one_before(
    three: list[State], directory: ModelDirectory, damaged: str
) -> None:
    (three[0].path / damaged).unlink()
    told = report_model(directory)
    assert told.step == 5
    assert told.states[0].problem == f"{damaged}: is missing"


def test_a_model_whose_only_state_is_broken_is_described_as_far_as_it_can_be_read(directory: ModelDirectory) -> None:
    state = publish(directory, 7)
    flip(state.path / MODEL_FILE)
    told = report_model(directory)
    assert told.step == 7
    assert told.states[0].whole is False
    (state.path / CONFIG_FILE).unlink()
    with pytest.raises(CheckpointError, match="no readable state"):
        report_model(directory)


def test_a_large_model_is_not_hashed_and_says_so(
    three: list[State], directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_HASHED_BYTES", 100)
    flip(three[0].path / MODEL_FILE)
    (three[1].path / MODEL_FILE).write_bytes(b"short")
    assert [(each.whole, bool(each.problem)) for each in entries(directory)] == [
        (None, False),
        (False, True),
        (None, False),
    ]


def test_what_cannot_be_read_is_neither_whole_nor_broken(
    three: list[State], directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = io.open, three[0].path / MODEL_FILE

    def refuse(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file) == str(path):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr(io, "open", refuse)
    told = report_model(directory)
    assert told.step == 5
    assert told.states[0].whole is None
    assert "Permission denied" in told.states[0].problem


def test_what_was_set_aside_is_told_with_its_size(three: list[State], directory: ModelDirectory) -> None:
    flip(three[0].path / MODEL_FILE)
    directory.newest([MODEL_FILE], lambda _: None, quarantine=True)
    publish(directory, 5)
    told = report_model(directory)
    assert [(each.why, each.size_bytes) for each in told.set_aside] == [
        (why, disk_use(path)) for why in ("broken", "replaced") for path in directory.path.glob(f"step-*.{why}-*")
    ]
    assert len(told.set_aside) == 2
    assert told.size_bytes == disk_use(directory.path)


def test_the_command_tells_it_all(three: list[State], directory: ModelDirectory, mypt: Mypt) -> None:
    flip(three[0].path / MODEL_FILE)
    publish(directory, 4, 3.0)
    where = ("inspect", "model", "--checkpoint-dir", directory.path.parent)
    shown = mypt(*where).stdout
    for words in (
        "1.0000 best",
        "whole",
        "model.safetensors: is damaged",
        "step-00000004.replaced-",
        "in 3 states and 1",
    ):
        assert words in shown, words
    told = json.loads(mypt(*where, "--json").stdout)
    assert [state["whole"] for state in told["states"]] == [False, True, True]
    assert told["size_bytes"] == disk_use(directory.path)
