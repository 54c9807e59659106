"""The C files here -> a library for this processor, kept in the user's cache folder once it was found to be right."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from ctypes import CDLL
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mypt.core.generate.native.finder import NativeFinder
from mypt.core.generate.native.layout import WHOLE_ROW
from mypt.core.generate.native.reader import MOST_TOKENS, NativeReader
from mypt.core.generate.reader import ModelReader
from mypt.core.generate.sampler import likeliest
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import quantize
from mypt.core.trials import cache_folder
from mypt.durable import make_directory, write_text
from mypt.errors import DivergedError, UsageError
from mypt.records.model import FAMILIES, ModelConfig

_FOLDER = Path(__file__).parent
_AVX2, _AVX512 = ("-march=x86-64-v3",), ("-march=x86-64-v4",)
_WHOLE_PRODUCTS = (*_AVX512, "-mavx512vnni")
"""With sums of products of 8 bits in one instruction; the code knows no others."""
_SIZES = (f"-DMOST_TOKENS={MOST_TOKENS}", f"-DWHOLE_ROW={WHOLE_ROW}")
_FLAGS = ("-std=gnu11", "-O3", "-fopenmp", "-shared", "-fPIC", *_SIZES)
_LONGEST_S = 120.0
_OTHERS = 0o077
_AGREES_WITHIN = {"fp32": 1e-4, "int8": 0.1, "bf16": 0.05}
"""Of the logits' spread: sums are taken in another order, so what is rounded may become its neighbour, and more."""


class UnavailableError(Exception):
    """There is no library, for a reason that can be told."""


@cache
def open_library() -> CDLL:
    """The library for this processor; the same one all the while.

    Raises:
        UnavailableError: where nothing can be compiled, kept, or relied on.
    """
    if sys.platform != "linux":
        raise UnavailableError("it was never tried on this system")
    if not (known := targets()):
        raise UnavailableError("the processor has neither AVX2 nor AVX-512")
    return library_for(known[0])


def targets() -> list[tuple[str, ...]]:
    """What tells a compiler of this processor's instructions: all of them, then what older processors have."""
    known = torch.backends.cpu.get_cpu_capability()
    if known != "AVX512":
        return [_AVX2] if known == "AVX2" else []
    abilities = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch can tell
    return [_WHOLE_PRODUCTS, _AVX512, _AVX2] if abilities.get("avx512_vnni") else [_AVX512, _AVX2]


def library_for(target: tuple[str, ...]) -> CDLL:
    """The library for a kind of processor, compiled if it is not kept.

    Raises:
        UnavailableError: as above.
    """
    try:
        sources = [path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.is_file()]
        key = _hash(b"\n".join([*sources, *map(str.encode, (*target, *_FLAGS, torch.__version__))]))
        folder = cache_folder() / "native"
        make_directory(folder)
        if folder.stat().st_mode & _OTHERS:
            folder.chmod(0o700)  # which is for its owner to do, and so an error in a folder that is not ours
        return _kept(folder, key) or _compiled(folder, key, target)
    except (OSError, RuntimeError, UsageError, DivergedError) as problem:
        raise UnavailableError(str(problem)) from None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _kept(folder: Path, key: str) -> CDLL | None:
    """A library of ours that is what it was, as its name says, and that this machine can load."""
    for path in folder.glob(f"read-{key}-*.so"):
        with suppress(OSError):
            found = path.stat()
            is_ours = found.st_uid == os.getuid() and not found.st_mode & _OTHERS
            if is_ours and path.stem.endswith(_hash(path.read_bytes())):
                return _opened(path)
    return None


def _opened(path: Path) -> CDLL:
    """A library.

    Raises:
        OSError: when it is none, or another one.
    """
    library = CDLL(str(path))
    if not all(hasattr(library, name) for name in ("mypt_read", "mypt_likeliest")):
        raise OSError("the compiler made something else")
    return library


def _compiled(folder: Path, key: str, target: tuple[str, ...]) -> CDLL:
    """Compile, compare with the model itself, and only then give it its name: others may be doing the same."""
    compiler = _compiler()
    refused = folder / f"refused-{_hash(repr((key, compiler, _changed_s(compiler[0]))).encode())}"
    if refused.exists():
        raise UnavailableError(f"{refused.read_text(encoding='utf-8')} (so it was the last time: {refused})")
    _sweep(folder)
    with tempfile.TemporaryDirectory(dir=folder) as room:
        made = Path(room) / "read.so"
        _run([*compiler, *_FLAGS, *target, "-o", str(made), *map(str, sorted(_FOLDER.glob("*.c"))), "-lm"])
        library = _opened(made)
        try:
            _require_agreement(library)
        except (UnavailableError, DivergedError) as problem:  # and so it would be the next time
            write_text(refused, str(problem))
            raise
        made.chmod(0o700)
        made.replace(folder / f"read-{key}-{_hash(made.read_bytes())}.so")
    return library


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


def _run(command: list[str]) -> None:
    try:
        # What $CC says is what its user wants to run.
        done = subprocess.run(command, capture_output=True, timeout=_LONGEST_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]} did not end") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").splitlines() or ["no message"]
        raise UnavailableError(f"{command[0]} failed: {words[0]}")


@torch.inference_mode()
def _require_agreement(library: CDLL) -> None:
    """Compare with little models of every family and type, in which every number matters, and with numpy."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        scores_BV = torch.randn(3, 5003, dtype=torch.float32).numpy()
        for count in (1, 40, 3000):
            ours, theirs = NativeFinder(library, library)(scores_BV, count), likeliest(scores_BV, count)
            if not all(map(np.array_equal, ours, theirs)):
                raise UnavailableError("compiled code does not agree with numpy")
        for family in FAMILIES:
            own: dict[str, Any] = {"n_kv_head": 2} if family == "modern" else {"bias": True}
            config = ModelConfig(family=family, n_layer=2, n_head=4, n_embd=72, block_size=40, vocab_size=83, **own)
            ids = torch.randint(config.vocab_size, (config.block_size,))
            for kind, allowed in _AGREES_WITHIN.items():
                model = GPT(config).float().eval()
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
                if kind == "int8":
                    quantize(model)
                if kind == "bf16":
                    model.bfloat16()
                ours = _last_logits(library, model, ids.tolist())
                theirs = model.float()(ids[None])[0, -1]
                if not (ours - theirs).abs().max() <= allowed * theirs.std():
                    raise UnavailableError(f"compiled code does not agree with the model ({family}, {kind})")


def _last_logits(library: CDLL, model: GPT, ids: list[int]) -> torch.Tensor:
    """Those of a text in the second row, beside a shorter one."""
    cache = KeyValueCache(model.config, 2, len(ids), torch.device("cpu"), model.dtype)
    reader = NativeReader(library, model, cache, ModelReader(model, cache, torch.device("cpu")))
    first, second = len(ids) // 2, len(ids) - 1
    reader.read(0, ids[second:])
    reader.read(1, ids[:first])
    reader.read(1, ids[first:second])
    return torch.from_numpy(reader.step([ids[0], ids[second]])[1])
