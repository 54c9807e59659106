"""C files -> a library for this processor, kept in the user's cache folder once it was found to be right."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import CDLL
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from mypt.core.trials import cache_folder
from mypt.durable import make_directory, write_text
from mypt.errors import DivergedError, UsageError

SHARED = Path(__file__).parent
"""Headers that all C files may include."""
_AVX2, _AVX512 = ("-march=x86-64-v3",), ("-march=x86-64-v4",)
_WHOLE_PRODUCTS = (*_AVX512, "-mavx512vnni")
"""With sums of products of 8 bits in one instruction."""
_PAIRS = (*_WHOLE_PRODUCTS, "-mavx512bf16")
"""With products of bf16 as well."""
_TILES = (*_PAIRS, "-mamx-tile", "-mamx-bf16")
"""With products of tiles of them; the code knows no other instructions."""
_FLAGS = ("-std=gnu11", "-O3", "-fopenmp", "-fPIC", "-fno-fast-math")
"""After those of $CC: sums have an order, and what is no number stays none."""
_LONGEST_S = 120.0
_OTHERS = 0o077


class UnavailableError(Exception):
    """There is no library, for a reason that can be told."""


class _NotCompiledError(UnavailableError):
    """The compiler did not want to."""


class Library(CDLL):
    """Compiled code that knows its own bits."""

    def __init__(self, path: Path) -> None:
        """Load a file."""
        self.digest = _hash(path.read_bytes())
        super().__init__(str(path))


@dataclass(frozen=True, slots=True)
class Code:
    """The C files of a folder, and what a library that is made of them must be."""

    name: str
    """Of what is kept."""
    folder: Path
    functions: tuple[str, ...]
    """That it must have."""
    require_agreement: Callable[[Library], None]
    """Compare a library with what it is to compute; what does not agree is an UnavailableError."""
    sizes: tuple[str, ...] = ()
    """What the compiler is told of them, as options."""


@cache
def open_library(code: Code) -> Library:
    """The library for this processor; the same one all the while.

    Raises:
        UnavailableError: where nothing can be compiled, kept, or relied on.
    """
    problems: list[UnavailableError] = []
    for target in _known_targets():
        try:
            return library_for(code, target)
        except _NotCompiledError as problem:  # an older compiler may not know the newest instructions
            problems.append(problem)
    raise problems[0]


def require_compiler() -> None:
    """Find out whether a library can be had, as far as that can be told without making one.

    Raises:
        UnavailableError: where it cannot.
    """
    _known_targets()
    _compiler()


def is_kept(code: Code) -> bool:
    """Whether nothing has to be compiled, as far as names tell."""
    with suppress(UnavailableError, OSError, RuntimeError):
        folder = cache_folder() / "native"
        return any(any(folder.glob(f"{code.name}-{_key(code, target)}-*.so")) for target in _known_targets())
    return False


def _known_targets() -> list[tuple[str, ...]]:
    if sys.platform != "linux":
        raise UnavailableError("it was never tried on this system")
    if not (known := targets()):
        raise UnavailableError("the processor has neither AVX2 nor AVX-512")
    return known


def targets() -> list[tuple[str, ...]]:
    """What tells a compiler of this processor's instructions: all of them, then what older processors have."""
    known = torch.backends.cpu.get_cpu_capability()
    if known != "AVX512":
        return [_AVX2] if known == "AVX2" else []
    abilities = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch can tell
    found: list[tuple[str, ...]] = [_AVX512, _AVX2]
    for target, ability in ((_WHOLE_PRODUCTS, "avx512_vnni"), (_PAIRS, "avx512_bf16"), (_TILES, "amx_bf16")):
        if not abilities.get(ability) or (target is _TILES and not _may_use_tiles()):
            break
        found.insert(0, target)
    return found


def _may_use_tiles() -> bool:
    """Ask the system for AMX's registers, which it gives to those who ask."""
    return bool(getattr(torch.cpu, "_init_amx", bool)())


def library_for(code: Code, target: tuple[str, ...]) -> Library:
    """The library for a kind of processor, compiled if it is not kept.

    Raises:
        UnavailableError: as above.
    """
    try:
        key = _key(code, target)
        folder = cache_folder() / "native"
        make_directory(folder)
        if folder.stat().st_mode & _OTHERS:
            folder.chmod(0o700)  # which is for its owner to do, and so an error in a folder that is not ours
        return _kept(code, folder, key) or _compiled(code, folder, key, target)
    except (OSError, RuntimeError, UsageError, DivergedError) as problem:
        raise UnavailableError(str(problem)) from None


def _key(code: Code, target: tuple[str, ...]) -> str:
    """What a library depends on, but for the compiler."""
    files = sorted(path for folder in (SHARED, code.folder) for path in folder.iterdir() if path.is_file())
    options = (*target, *_FLAGS, *code.sizes, torch.__version__)
    return _hash(b"\n".join([*(path.read_bytes() for path in files), *map(str.encode, options)]))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _kept(code: Code, folder: Path, key: str) -> Library | None:
    """A library of ours that is what it was, as its name says, and that this machine can load."""
    for path in folder.glob(f"{code.name}-{key}-*.so"):
        with suppress(OSError):
            found = path.stat()
            is_ours = found.st_uid == os.getuid() and not found.st_mode & _OTHERS
            if is_ours and path.stem.endswith(_hash(path.read_bytes())):
                return _opened(code, path)
    return None


def _opened(code: Code, path: Path) -> Library:
    """A library.

    Raises:
        OSError: when it is none, or another one.
    """
    library = Library(path)
    if not all(hasattr(library, name) for name in code.functions):
        raise OSError("the compiler made something else")
    return library


def _compiled(code: Code, folder: Path, key: str, target: tuple[str, ...]) -> Library:
    """Compile, compare with what it is to compute, and only then give it its name: others may be doing the same."""
    compiler = _compiler()
    refused = folder / f"refused-{_hash(repr((key, compiler, _changed_s(compiler[0]))).encode())}"
    if refused.exists():
        raise UnavailableError(f"{refused.read_text(encoding='utf-8')} (so it was the last time: {refused})")
    _sweep(folder)
    with tempfile.TemporaryDirectory(dir=folder) as room:
        made = Path(room) / "made.so"
        _make(code, [*compiler, *_FLAGS, *code.sizes, *target], made)
        library = _opened(code, made)
        try:
            code.require_agreement(library)
        except (UnavailableError, DivergedError) as problem:  # and so it would be the next time
            write_text(refused, str(problem))
            raise
        made.chmod(0o700)
        made.replace(folder / f"{code.name}-{key}-{_hash(made.read_bytes())}.so")
    return library


def _make(code: Code, compiler: list[str], made: Path) -> None:
    """Compile all files at once, each by a process, and put them together."""
    sources = sorted(code.folder.glob("*.c"))
    parts = [str(made.with_name(f"{source.stem}.o")) for source in sources]
    headers = ["-I", str(SHARED)]
    _run(*([*compiler, *headers, "-c", "-o", part, str(source)] for part, source in zip(parts, sources, strict=True)))
    _run([*compiler, "-shared", "-o", str(made), *parts, "-lm"])


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they compiled."""
    for left in folder.glob("tmp*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * _LONGEST_S:
                shutil.rmtree(left)


def _changed_s(program: str) -> float:
    """When a program was written: another version of it is another compiler."""
    return Path(shutil.which(program) or program).stat().st_mtime


def _compiler() -> list[str]:
    """GCC, whose threads are those of torch; or what $CC says."""
    command = os.environ.get("CC", "").split() or ["gcc"]
    if not shutil.which(command[0]):
        raise UnavailableError(f"there is no C compiler {command[0]}")
    return command


def _run(*commands: list[str]) -> None:
    """Run commands side by side, and wait for all."""
    # What $CC says is what its user wants to run.
    running = [subprocess.Popen(each, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for each in commands]  # noqa: S603
    try:
        for command, process in zip(commands, running, strict=True):
            _, complaints = process.communicate(timeout=_LONGEST_S)
            if process.returncode:
                words = complaints.decode(errors="replace").splitlines() or ["no message"]
                told = next((line for line in words if "error" in line.lower()), words[0])
                raise _NotCompiledError(f"{command[0]} failed: {told}")
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{commands[0][0]} did not end") from None
    finally:
        for process in running:
            process.kill()
            process.communicate()
