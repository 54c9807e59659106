"""read.c -> a library for this processor, which is kept in the user's cache folder once it was found to be right."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from ctypes import CDLL
from functools import cache
from pathlib import Path

import torch

from mypt.core.device import NARROW
from mypt.core.generate.native.reader import NativeReader
from mypt.core.generate.reader import ModelReader
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import quantize
from mypt.core.trials import cache_folder
from mypt.durable import make_directory
from mypt.errors import UsageError
from mypt.records.model import FAMILIES, ModelConfig

_SOURCE = Path(__file__).with_name("read.c")
_TARGETS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
"""What compilers call the instructions that torch finds; read.c knows no others."""
_FLAGS = ("-std=gnu11", "-O3", "-fopenmp", "-shared", "-fPIC")
_LONGEST_S = 120.0
_OTHERS_MAY_WRITE = 0o022
_AGREES_WITHIN = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.1}
"""Of the logits' spread: sums in another order, and activations that the model itself rounds."""


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
    target = _TARGETS.get(torch.backends.cpu.get_cpu_capability())
    if target is None:
        raise UnavailableError("the processor has neither AVX2 nor AVX-512")
    return library_for(target)


def library_for(target: str) -> CDLL:
    """The library for a kind of processor, compiled if it is not kept.

    Raises:
        UnavailableError: as above.
    """
    key = _hash(b"\n".join([_SOURCE.read_bytes(), target.encode(), *map(str.encode, _FLAGS)]))
    try:
        folder = cache_folder() / "native"
        return CDLL(str(_kept(folder, key) or _compiled(folder, key, target)))
    except (OSError, RuntimeError, UsageError) as problem:
        raise UnavailableError(str(problem)) from None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _kept(folder: Path, key: str) -> Path | None:
    """A library that is what it was, as its name says; one that others could have put there is not run."""
    for path in folder.glob(f"read-{key}-*.so"):
        found = path.stat()
        is_ours = found.st_uid == os.getuid() and not found.st_mode & _OTHERS_MAY_WRITE
        if is_ours and path.stem.endswith(_hash(path.read_bytes())):
            return path
    return None


def _compiled(folder: Path, key: str, target: str) -> Path:
    """Compile, compare with the model itself, and only then give it its name: others may be doing the same."""
    make_directory(folder)
    with tempfile.TemporaryDirectory(dir=folder) as room:
        made = Path(room) / "read.so"
        _run([*_compiler(), *_FLAGS, f"-march={target}", "-o", str(made), str(_SOURCE), "-lm"])
        _require_agreement(CDLL(str(made)))
        made.chmod(0o755)
        return made.replace(folder / f"read-{key}-{_hash(made.read_bytes())}.so")


def _compiler() -> list[str]:
    command = os.environ.get("CC", "").split() or [next(filter(shutil.which, ("cc", "gcc", "clang")), "")]
    if not shutil.which(command[0]):
        raise UnavailableError("there is no C compiler")
    return command


def _run(command: list[str]) -> None:
    try:
        # What $CC says is what its user wants to run.
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]} did not end") from None
    if done.returncode:
        raise UnavailableError(f"{command[0]} failed: {next(iter(done.stderr.splitlines()), 'no message')}")


@torch.inference_mode()
def _require_agreement(library: CDLL) -> None:
    """Compare with little models of every family and type."""
    with torch.random.fork_rng(devices=[]):
        for family in FAMILIES:
            config = ModelConfig(family=family, n_layer=2, n_head=3, n_embd=66, block_size=40, vocab_size=83)
            ids = torch.randint(config.vocab_size, (1, config.block_size))
            for kind, allowed in _AGREES_WITHIN.items():
                model = GPT(config).eval().requires_grad_(False)  # noqa: FBT003 - torch's own
                if kind == "int8":
                    quantize(model)
                elif kind in NARROW:
                    model.to(NARROW[kind])
                ours, theirs = _last_logits(library, model, ids[0].tolist()), model(ids)[0, -1].float()
                if not (ours - theirs).abs().max() <= allowed * theirs.std():
                    raise UnavailableError(f"compiled code does not agree with the model ({family}, {kind})")


def _last_logits(library: CDLL, model: GPT, ids: list[int]) -> torch.Tensor:
    cache = KeyValueCache(model.config, 1, len(ids), torch.device("cpu"), model.dtype)
    reader = NativeReader(library, model, cache, ModelReader(model, cache, torch.device("cpu")))
    first, second = len(ids) // 2, len(ids) - 1
    reader.read(0, ids[:first])
    reader.read(0, ids[first:second])
    return torch.from_numpy(reader.step(ids[second:])[0])
