"""A disk to die on: it stands between the code and `os`, counts, kills, and remembers what was flushed.

`Disk` watches the calls that change a folder. `Remains` computes what a power cut after the n-th of
them may leave: not all that was written has reached the disk then, nor every name.
"""

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

KILLED = 77

Tree = tuple[tuple[str, bytes], ...]
"""Names and contents under a folder, parents first; the name of a folder ends with a slash."""


class Call(NamedTuple):
    """One change of the disk."""

    name: str
    path: str
    target: str = ""
    data: bytes = b""


@dataclass
class Disk:
    """What happens to the disk while it is watched."""

    kill_after: int | None = None
    """This process ends after so many changes."""
    torn: bool = False
    """The last change, if it is a write, writes half."""
    calls: list[Call] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Stand between the code and the system."""
        if self.kill_after == 0:
            os._exit(KILLED)
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "close")}

        def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            handle = real["open"](path, flags, mode, dir_fd=dir_fd)
            self._paths[handle] = os.fspath(path)
            if flags & os.O_CREAT:
                self._note(Call("create", os.fspath(path)))
            return handle

        def write(handle: int, data: memoryview) -> int:
            is_last = self.torn and len(self.calls) + 1 == self.kill_after
            taken = real["write"](handle, data[: len(data) // 2] if is_last else data)
            self._note(Call("write", self._paths[handle], data=bytes(data[:taken])))
            return taken

        def fsync(handle: int) -> None:
            # Not done: this disk decides itself what survives.
            self._note(Call("fsync", self._paths[handle]))

        def close(handle: int) -> None:
            self._paths.pop(handle, None)
            real["close"](handle)

        watching: dict[str, Any] = {"open": open_, "write": write, "fsync": fsync, "close": close}
        watching |= {name: self._watching(name) for name in ("mkdir", "rename", "replace", "unlink", "rmdir")}
        with patch.multiple("os", **watching):
            yield

    def _watching(self, name: str) -> Callable[..., None]:
        real = getattr(os, name)

        def call(path: Any, *rest: Any, **options: Any) -> None:
            real(path, *rest, **options)
            target = os.fspath(rest[0]) if name in {"rename", "replace"} else ""
            self._note(Call(name, os.fspath(path), target))

        return call

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        if len(self.calls) == self.kill_after:
            os._exit(KILLED)


def in_child(work: Callable[[], object]) -> int:
    """Do something in a copy of this process; give its exit status: 0, 1 for an exception, or KILLED."""
    return os.waitstatus_to_exitcode(os.waitpid(start_child(work), 0)[1])


def start_child(work: Callable[[], object]) -> int:
    """Begin something in a copy of this process; give its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads do not survive in a copy; it needs none
        process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return process


class File:
    """Bytes: what was written, and how much of it was flushed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.flushed_bytes = len(data)


class Folder:
    """Names: those flushed, and the changes since, each one all or nothing."""

    def __init__(self) -> None:
        self.flushed: dict[str, File | Folder] = {}
        self.pending: list[dict[str, File | Folder | None]] = []

    def names(self, keeps: Callable[[int], bool] = lambda _: True) -> dict[str, "File | Folder"]:
        """What is there when those of the pending changes are kept that `keeps` (by number) names."""
        entries: dict[str, File | Folder | None] = dict(self.flushed)
        for number, change in enumerate(self.pending):
            if keeps(number):
                entries |= change
        return {name: node for name, node in entries.items() if node is not None}


class Remains:
    """The folder `root` as a power cut may leave it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _read(root)

    def apply(self, call: Call) -> None:
        """One more change was done."""
        folder, name = self._locate(call.path)
        if call.name == "create":
            folder.pending.append({name: File(b"")})
        elif call.name == "mkdir":
            folder.pending.append({name: Folder()})
        elif call.name in {"unlink", "rmdir"}:
            folder.pending.append({name: None})
        elif call.name in {"rename", "replace"}:
            target, new_name = self._locate(call.target)
            assert target is folder, "names move inside of one folder only"
            folder.pending.append({new_name: folder.names()[name], name: None})
        elif call.name == "write":
            file = folder.names()[name]
            assert isinstance(file, File)
            file.data += call.data
        else:
            self._flush(self._top if call.path == str(self._root) else folder.names()[name])

    def most_pending(self) -> int:
        """The largest number of changes that one folder has not flushed."""
        return max(len(folder.pending) for folder in _folders(self._top))

    def left(self, *, data: bool, keeps: Callable[[int], bool]) -> Tree:
        """What is left.

        Args:
            data: whether bytes that were not flushed have reached the disk all the same.
            keeps: whether the pending change of this number has, in every folder.
        """
        return tuple(sorted(_left(self._top, "", data=data, keeps=keeps)))

    def _locate(self, path: str) -> tuple[Folder, str]:
        folder, (*parents, name) = self._top, [*Path(path).relative_to(self._root).parts] or ["."]
        for parent in parents:
            inner = folder.names()[parent]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    @staticmethod
    def _flush(node: File | Folder) -> None:
        if isinstance(node, File):
            node.flushed_bytes = len(node.data)
        else:
            node.flushed = node.names()
            node.pending.clear()


def _read(path: Path) -> Folder:
    folder = Folder()
    for each in path.iterdir():
        folder.flushed[each.name] = _read(each) if each.is_dir() else File(each.read_bytes())
    return folder


def build(tree: Tree, target: Path) -> None:
    """Make a folder what was left of another."""
    target.mkdir()
    for name, data in tree:
        if name.endswith("/"):
            (target / name).mkdir()
        else:
            (target / name).write_bytes(data)


def _left(folder: Folder, path: str, *, data: bool, keeps: Callable[[int], bool]) -> Generator[tuple[str, bytes]]:
    for name, node in folder.names(keeps).items():
        if isinstance(node, Folder):
            yield f"{path}{name}/", b""
            yield from _left(node, f"{path}{name}/", data=data, keeps=keeps)
        else:
            yield f"{path}{name}", node.data if data else node.data[: node.flushed_bytes]


def _folders(folder: Folder) -> Generator[Folder]:
    yield folder
    for node in folder.names().values():
        if isinstance(node, Folder):
            yield from _folders(node)
