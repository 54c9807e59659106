"""read.c -> a library for this processor, which is kept in the user's cache folder once it was found to be right."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from copy import deepcopy
from ctypes import CDLL
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mypt.core.generate.native.reader import NativeReader
from mypt.core.generate.reader import ModelReader
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import Int8Matrix, quantize
from mypt.core.trials import cache_folder
from mypt.durable import make_directory
from mypt.errors import UsageError
from mypt.records.model import FAMILIES, ModelConfig

_SOURCE = Path(__file__).with_name("read.c")
_TARGETS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
"""What compilers call the instructions that torch finds; read.c knows no others."""
_FLAGS = ("-std=gnu11", "-O3", "-fopenmp", "-shared", "-fPIC")
_LONGEST_S = 120.0
_OTHERS = 0o077
_AGREES_WITHIN = {"fp32": 1e-4, "int8": 1e-4, "bf16": 0.05}
"""Of the logits' spread: sums are taken in another order, and in bf16 keys and values are rounded."""


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
    try:
        key = _hash(b"\n".join([_SOURCE.read_bytes(), target.encode(), *map(str.encode, _FLAGS)]))
        folder = cache_folder() / "native"
        make_directory(folder)
        if folder.stat().st_mode & _OTHERS:
            folder.chmod(0o700)  # which is for its owner to do, and so an error in a folder that is not ours
        return _kept(folder, key) or _compiled(folder, key, target)
    except (OSError, RuntimeError, UsageError) as problem:
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
                return CDLL(str(path))
    return None


def _compiled(folder: Path, key: str, target: str) -> CDLL:
    """Compile, compare with the model itself, and only then give it its name: others may be doing the same."""
    with tempfile.TemporaryDirectory(dir=folder) as room:
        made = Path(room) / "read.so"
        _run([*_compiler(), *_FLAGS, f"-march={target}", "-o", str(made), str(_SOURCE), "-lm"])
        library = CDLL(str(made))
        _require_agreement(library)
        made.chmod(0o700)
        made.replace(folder / f"read-{key}-{_hash(made.read_bytes())}.so")
    return library


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
    """Compare with little models of every family and type, in which every number matters."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for family in FAMILIES:
            own: dict[str, Any] = {"n_kv_head": 2} if family == "modern" else {"bias": True}
            config = ModelConfig(family=family, n_layer=2, n_head=4, n_embd=72, block_size=40, vocab_size=83, **own)
            ids = torch.randint(config.vocab_size, (config.block_size,))
            for kind, allowed in _AGREES_WITHIN.items():
                model = GPT(config).float().eval()
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
                ours = _last_logits(library, _narrowed(model, kind), ids.tolist())
                theirs = model(ids[None])[0, -1]
                if not (ours - theirs).abs().max() <= allowed * theirs.std():
                    raise UnavailableError(f"compiled code does not agree with the model ({family}, {kind})")


def _narrowed(model: GPT, kind: str) -> GPT:
    """The model in another type; the model itself is given the same numbers, in fp32."""
    narrow = deepcopy(model)
    if kind == "bf16":
        narrow.to(torch.bfloat16)
        model.to(torch.bfloat16).float()
    if kind == "int8":
        quantize(narrow)
        for name, module in narrow.named_modules():
            if isinstance(module, Int8Matrix):
                wide = module.rows(torch.arange(len(module.weight)))
                model.get_parameter(f"{name}.weight").copy_(wide)
    return narrow


def _last_logits(library: CDLL, model: GPT, ids: list[int]) -> torch.Tensor:
    """Those of a text in the second row, beside a shorter one."""
    cache = KeyValueCache(model.config, 2, len(ids), torch.device("cpu"), model.dtype)
    reader = NativeReader(library, model, cache, ModelReader(model, cache, torch.device("cpu")))
    first, second = len(ids) // 2, len(ids) - 1
    reader.read(0, ids[second:])
    reader.read(1, ids[:first])
    reader.read(1, ids[first:second])
    return torch.from_numpy(reader.step([ids[0], ids[second]])[1])
