"""Where the work happens: device and precision as one frozen value."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from mypt.errors import UsageError

Kind = Literal["cpu", "cuda", "mps"]

_MOST_DIGITS = 4
# On a CPU, products of narrower matrices take less time than what is around them.
_NARROWEST_BF16 = {"cpu": 128, "cuda": 0, "mps": 0}


@dataclass(frozen=True, slots=True)
class Device:
    """The facts of one process. Decided once, passed along, never global."""

    kind: Kind
    index: int | None
    precision: Literal["fp32", "bf16"]

    @property
    def torch(self) -> torch.device:
        """The same device for torch."""
        return torch.device(self.kind, self.index) if self.index is not None else torch.device(self.kind)

    @property
    def name(self) -> str:
        """The device as its driver names it, 'NVIDIA H200'; 'cpu' and 'mps' have no name of their own."""
        return torch.cuda.get_device_name(self.torch) if self.kind == "cuda" else self.kind

    @property
    def label(self) -> str:
        """Human name: 'cpu (2 threads)', 'cuda: NVIDIA H200'."""
        if self.kind == "cuda":
            return f"cuda: {self.name}"
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' * (threads > 1)})" if self.kind == "cpu" else self.kind

    def synchronize(self) -> None:
        """Wait for queued work, so that a clock read after it is true."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch)
        elif self.kind == "mps":
            torch.mps.synchronize()


def choose_device(name: str = "auto", precision: str = "auto", width: int = 0) -> Device:
    """Decide device and precision: the same on the same machine for the same model.

    Args:
        name: 'auto' (CUDA, else MPS, else CPU), 'cpu', 'cuda', 'cuda:N' or 'mps'.
        precision: 'auto' is bf16 where the device has instructions for it and the model is wide enough, else fp32.
        width: of the model's residual stream.

    Raises:
        UsageError: for a device this machine does not have.
    """
    kind, index = _parse(name)
    has_bf16 = computes_bf16(torch.device(kind) if index is None else torch.device(kind, index))
    if precision == "auto":
        precision = "bf16" if has_bf16 and width >= _NARROWEST_BF16[kind] else "fp32"
    if precision == "bf16" and kind != "cpu" and not has_bf16:
        raise UsageError(f"precision bf16: {name} does not have it", hint="Use --precision fp32.")
    return Device(kind, index, "bf16" if precision == "bf16" else "fp32")


@cache
def computes_bf16(device: torch.device) -> bool:
    """Whether products of bf16 matrices are faster than those of fp32: the device has instructions for them."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        abilities = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch can tell
        return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


_RUNS: list[bool] = []
"""What torch's setting was before each run of this process that goes on now."""


@contextmanager
def deterministic() -> Generator[None]:
    """Only kernels that give the same bits every time. Enter it before the first CUDA work."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _RUNS.append(torch.are_deterministic_algorithms_enabled())
    # Not as warnings only: attention's backward pass takes its exact path only when it must.
    torch.use_deterministic_algorithms(mode=True)
    # It would also fill every fresh tensor with NaN, to expose reads of unset memory: pure cost.
    # pyrefly: ignore [missing-attribute] - torch makes it a property of the module at run time
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        # Runs may overlap: the last one to end gives back what was before the first.
        torch.use_deterministic_algorithms(mode=_RUNS.pop())


def _parse(name: str) -> tuple[Kind, int | None]:
    wanted, _, number = name.partition(":")
    if wanted == "auto" and not number:
        if torch.cuda.is_available():
            return "cuda", None
        return ("mps", None) if torch.backends.mps.is_available() else ("cpu", None)
    if wanted == "cpu" and not number:
        return "cpu", None
    if wanted == "mps" and not number and torch.backends.mps.is_available():
        return "mps", None
    if wanted == "cuda" and (not number or (number.isdecimal() and len(number) <= _MOST_DIGITS)):
        index = int(number) if number else None
        if (index or 0) < torch.cuda.device_count():
            return "cuda", index
    present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    present += ["mps"] if torch.backends.mps.is_available() else []
    raise UsageError(f"device {name[:40]}: this machine does not have it", hint=f"Here: auto, {', '.join(present)}")
