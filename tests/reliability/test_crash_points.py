"""Death and power loss after every single change of the disk: what loads is the old state or the new one."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from disks import KILLED, Disk, Remains, Tree, build, in_child
from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import ALL_FILES, MODEL_FILE
from mypt.core.checkpoint.store import ModelDirectory
from states import contents, digest, publish, steps

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are copied with fork")


@dataclass(frozen=True)
class Scenario:
    """What is there before, and the work that is interrupted."""

    before: tuple[int, ...]
    """Steps saved before, one by one; the first has the best loss."""
    new: Contents | None
    """What is saved; None: the newest is damaged and is set aside."""
    retires: bool = False
    leftover: bool = False

    def prepare(self, root: Path) -> ModelDirectory:
        """Make the folder as it is before."""
        directory = ModelDirectory(root, "model")
        root.mkdir()
        for number, step in enumerate(self.before):
            publish(directory, step, 1.0 + number)
        if self.leftover:
            shutil.copytree(directory.states()[0].path, directory.path / ".tmp-step-00000009-1234")
        if self.new is None:
            (directory.states()[0].path / MODEL_FILE).write_bytes(b"damaged")
        return directory

    def work(self, directory: ModelDirectory) -> None:
        """Do what is interrupted."""
        if self.new is None:
            directory.newest(ALL_FILES, lambda _: None, quarantine=True)
        else:
            directory.publish(self.new)
            if self.retires:
                directory.retire()

    def doomed(self) -> set[int]:
        """Steps that may be gone: the work retires them."""
        return set(self.before[1:-1]) if self.retires else set()


SCENARIOS = {
    "the first save": Scenario((), contents(1)),
    "a save": Scenario((1,), contents(2)),
    "a save that retires": Scenario((1, 2, 3), contents(4, 9.0), retires=True),
    "a step saved again": Scenario((1, 2), contents(2, value=7.0)),
    "the only step saved again": Scenario((2,), contents(2, value=7.0)),
    "a save beside a killed one's leftovers": Scenario((1, 2), contents(3), leftover=True),
    "a damaged state set aside": Scenario((1, 2), None),
}
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    # The disk is played; the real one need not be waited for.
    def at_once(_handle: int) -> None:
        pass

    monkeypatch.setattr(os, "fsync", at_once)


def newest(directory: ModelDirectory) -> str | None:
    state = directory.newest(ALL_FILES, lambda _: None, quarantine=True)
    return None if state is None else digest(state)


def expected(scenario: Scenario, tmp_path: Path) -> tuple[str | None, str | None]:
    """What loads before the work and after it, as hashes."""
    directory = scenario.prepare(tmp_path / "reference")
    before = newest(directory)
    scenario.work(directory)
    return before, newest(directory)


def check(scenario: Scenario, root: Path, allowed: set[str | None]) -> str | None:
    """What the interruption left is old or new, whole, and can be gone on with. Gives what loads."""
    directory = ModelDirectory(root, "model")
    reader = directory.newest(ALL_FILES, lambda _: None, quarantine=False)
    loaded = None if reader is None else digest(reader)
    assert loaded in allowed
    if scenario.new is not None:
        assert set(scenario.before) - scenario.doomed() <= set(steps(directory))
        for state in directory.states():
            state.verify()
    if scenario.new is None:
        assert newest(directory) in allowed
    again = scenario.new or contents(3)
    saved, _ = directory.publish(again)
    directory.retire()
    assert not [path.name for path in directory.path.iterdir() if path.name.startswith(".")]
    assert directory.newest(ALL_FILES, pytest.fail, quarantine=True) == saved
    return loaded


@each_scenario
@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "inside a write"])
def test_death_after_any_change_of_the_disk_leaves_the_old_state_or_the_new(
    scenario: Scenario, torn: bool, tmp_path: Path
) -> None:
    before, after = expected(scenario, tmp_path)
    points, outcomes = 0, set[str | None]()
    while True:
        root = tmp_path / f"after-{points}"
        directory = scenario.prepare(root)
        disk = Disk(kill_after=points, torn=torn)

        def doomed(disk: Disk = disk, directory: ModelDirectory = directory) -> None:
            with disk.watched():
                scenario.work(directory)

        status = in_child(doomed)
        outcomes.add(check(scenario, root, {before, after} if status == KILLED else {after}))
        if status != KILLED:
            break
        points += 1
    assert status == 0
    assert outcomes == {before, after}
    assert points >= (2 if scenario.new is None else 25)


# Of the changes of names that a folder has not flushed, by number: those the power cut has left.
KEPT: dict[str, Callable[[int, int], bool]] = {
    "all names": lambda _change, _chosen: True,
    "no names": lambda _change, _chosen: False,
    "one name": lambda change, chosen: change == chosen,
    "all names but one": lambda change, chosen: change != chosen,
}


@each_scenario
@pytest.mark.parametrize(
    ("kept", "data"),
    [("all names", False), ("no names", True), ("no names", False), ("one name", False), ("all names but one", True)],
    ids=lambda value: value if isinstance(value, str) else ["flushed bytes", "all bytes"][value],
)
def test_a_power_cut_after_any_change_of_the_disk_leaves_the_old_state_or_the_new(
    scenario: Scenario, kept: str, data: bool, tmp_path: Path
) -> None:
    before, after = expected(scenario, tmp_path)
    directory = scenario.prepare(tmp_path / "watched")
    remains, disk = Remains(tmp_path / "watched"), Disk()
    with disk.watched():
        scenario.work(directory)
    seen = set[Tree]()
    for point in range(len(disk.calls) + 1):
        if point:
            remains.apply(disk.calls[point - 1])
        is_last = point == len(disk.calls)
        for chosen in range(remains.most_pending() if "one" in kept else 1):
            root = tmp_path / f"left-{point}-{chosen}"
            tree = remains.left(data=data, keeps=lambda change, chosen=chosen: KEPT[kept](change, chosen))
            if is_last or tree not in seen:
                build(tree, root)
                check(scenario, root, {after} if is_last else {before, after})
                seen.add(tree)
    assert len(seen) >= (1 if scenario.new is None else 2), kept


@each_scenario
def test_no_change_of_the_disk_goes_past_the_watch(scenario: Scenario, tmp_path: Path) -> None:
    """Python itself tells of every file it opens to write, every folder and every name."""
    directory = scenario.prepare(tmp_path / "watched")

    def compare() -> None:
        told: list[str] = []

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                told.append("create")
            elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}:
                told.append(event.removeprefix("os."))

        disk = Disk()
        with disk.watched():
            sys.addaudithook(hear)
            scenario.work(directory)
        words = {"unlink": "remove", "replace": "rename"}
        seen = [words.get(call.name, call.name) for call in disk.calls if call.name not in {"write", "fsync"}]
        assert seen == told
        assert seen

    assert in_child(compare) == 0
