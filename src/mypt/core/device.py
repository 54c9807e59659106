"""Where the work happens: device and precision as one frozen value."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from mypt.errors import MemoryShortageError, UsageError

Kind = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}

_MOST_DIGITS = 4
# The words of torch's CPU allocator, C++, oneDNN and cuBLAS for the same thing.
_SHORTAGES = ("can't allocate", "bad_alloc", "out of memory", "cannot allocate memory", "alloc_failed")
_TENSOR_CORES = (7, 0)
"""From this compute capability on (Volta) a GPU multiplies matrices of fp16 several times as fast as those of fp32."""


@dataclass(frozen=True, slots=True)
class Device:
    """The facts of one process. Decided once, passed along, never global."""

    kind: Kind
    index: int | None
    precision: Precision
    compiled: bool = False
    """Whether compiled code runs: of the steps of a training, or of the reading of tokens for a generation."""
    kernels: bool = False
    """Whether our own kernels take the place of torch's in the steps of a training, which then are not compiled."""

    def with_compiled_code(self) -> "Device":
        """The same, where compiled code runs, and so no kernels."""
        return replace(self, compiled=True, kernels=False)

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

    @property
    def steps_ahead(self) -> int:
        """How many steps it is at work on when the ones before are read: a GPU is not to wait for us."""
        return 1 if self.kind == "cuda" else 0

    def later(self, numbers: Tensor) -> Callable[[], list[float]]:
        """Have numbers copied from the device; what is given waits for them, and for no work that is sent later."""
        if self.kind != "cuda":
            return numbers.tolist
        copied = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        copied.copy_(numbers, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.torch))

        def wait() -> list[float]:
            done.synchronize()
            return copied.tolist()

        return wait

    def synchronize(self) -> None:
        """Wait for queued work, so that a clock read after it is true."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch)
        elif self.kind == "mps":
            torch.mps.synchronize()


def choose_device(name: str = "auto", precision: Precision | Literal["auto"] = "auto") -> Device:
    """Decide device and precision: the same on the same machine.

    Args:
        name: 'auto' (CUDA, else MPS, else CPU), 'cpu', 'cuda', 'cuda:N' or 'mps'.
        precision: 'auto' is what a GPU does best, and fp32 elsewhere; only a trial can tell for a CPU.

    Raises:
        UsageError: for a device this machine does not have.
    """
    kind, index = _parse(name)
    device = torch.device(kind) if index is None else torch.device(kind, index)
    if precision == "auto":
        precision = "fp32"
        if kind == "cuda":
            precision = best_on_cuda(torch.cuda.get_device_capability(device), has_bf16=bool(computes_bf16(device)))
    if precision == "bf16" and kind != "cpu" and not computes_bf16(device):
        raise UsageError(f"precision bf16: {name} does not have it", hint="Use --precision fp16 or fp32.")
    return Device(kind, index, precision)


def best_on_cuda(capability: tuple[int, int], *, has_bf16: bool) -> Precision:
    """The precision for a GPU: bf16, whose loss needs no scaling, before fp16; fp32 where neither is fast."""
    if has_bf16:
        return "bf16"
    return "fp16" if capability >= _TENSOR_CORES else "fp32"


@cache
def computes_bf16(device: torch.device) -> bool | None:
    """Whether the device has instructions for products of bf16 matrices; None where nobody can tell."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        abilities = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch can tell
        if abilities:
            return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return None
    return False


def is_shortage(problem: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    # torch.OutOfMemoryError is a RuntimeError; the CPU allocator raises a plain one.
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(word in str(problem).lower() for word in _SHORTAGES)


@contextmanager
def shortage_told(tell: Callable[[], MemoryShortageError]) -> Generator[None]:
    """Say in our words that something does not fit.

    Raises:
        MemoryShortageError: what `tell` gives, instead of torch's and Python's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        if not is_shortage(problem):
            raise
        raise tell() from None


_RUNS: list[int] = []
"""What torch's setting was before each run of this process that goes on now."""


@contextmanager
def deterministic() -> Generator[None]:
    """Only kernels that give the same bits every time. Enter it before the first CUDA work."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _RUNS.append(torch.get_deterministic_debug_mode())
    # Not as warnings only: attention's backward pass takes its exact path only when it must. torch's other function
    # for it would load the compiler, which takes as long as loading torch.
    torch.set_deterministic_debug_mode("error")
    # It would also fill every fresh tensor with NaN, to expose reads of unset memory: pure cost.
    # pyrefly: ignore [missing-attribute] - torch makes it a property of the module at run time
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        # Runs may overlap: the last one to end gives back what was before the first.
        torch.set_deterministic_debug_mode(_RUNS.pop())


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
