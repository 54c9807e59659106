"""What is measured of any process: matrix products, the time of a step, the peak of memory."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from mypt import __version__
from mypt.core.device import NARROW, Device, computes_bf16
from mypt.core.limits import free_memory_bytes, memory_limit_bytes
from mypt.core.train.memory import step_memory
from mypt.core.train.start import run_device
from mypt.events import result_of
from mypt.records.bench import Job, MachineFacts, Survey
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig

_WIDTHS = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Of the square matrices: so large that larger ones are no faster."""
_MATRIX_S = 1.0
_WARMUP_STEPS = 3
_FEWEST_STEPS = 3
_DTYPES = {"fp32": torch.float32, **NARROW}
_WIDE = ModelConfig(n_embd=1024, n_head=16)
"""A model of this width computes in the device's best precision."""


def survey(job: Job) -> Survey:
    """Say where this is, how fast it multiplies matrices, and what each config would need.

    Raises:
        UsageError: for a device that this machine does not have.
    """
    device = device_of(job.config.model_copy(update={"model": _WIDE}))
    machine = MachineFacts(
        device=device.label,
        kind=device.kind,
        precision=device.precision,
        has_bf16=bool(computes_bf16(device.torch)),
        matrix_flops_per_s=matrix_flops_per_s(device, job.seconds),
        torch=torch.__version__,
        mypt=__version__,
    )
    needed = {name: _step_bytes(config, device_of(config)) for name, config in job.configs.items()}
    return Survey(machine=machine, free_bytes=_free_bytes(device), needed_bytes=needed)


def _step_bytes(config: RunConfig, device: Device) -> int:
    """What steps alone need: nothing is evaluated here, nor saved."""
    memory = step_memory(config, device, config.training.sequences_at_once)
    return memory.peak - memory.evaluation - memory.snapshot


def device_of(config: RunConfig) -> Device:
    """Where and how a training of this config runs.

    Raises:
        UsageError: for a device that this machine does not have.
    """
    device = result_of(run_device(config, None))
    return device.with_compiled_code() if config.training.compile == "on" else device


def matrix_flops_per_s(device: Device, seconds: float) -> float:
    """FLOP/s of a product of large square matrices in the device's precision, by the median of a second at most."""
    width = _WIDTHS[device.kind]
    left, right = torch.randn(2, width, width, device=device.torch).to(_DTYPES[device.precision]).unbind()
    out = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=out)
        device.synchronize()

    return 2 * width**3 / median_step_s(multiply, min(seconds, _MATRIX_S))


def median_step_s(step: Callable[[], object], seconds: float) -> float:
    """Seconds of the median step. The first ones prepare what the later ones use and are not counted.

    Args:
        step: does all its work before it returns.
        seconds: of counted steps together; there are at least three.
    """
    began_s = time.perf_counter()
    for _ in range(_WARMUP_STEPS):
        step()
        if time.perf_counter() - began_s > seconds:
            break  # steps this long need no more of it
    times_s: list[float] = []
    while len(times_s) < _FEWEST_STEPS or sum(times_s) < seconds:
        started_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - started_s)
    return median(times_s)


def _free_bytes(device: Device) -> int | None:
    """A machine that is made to swap would measure its disk."""
    if device.kind == "cuda":
        return torch.cuda.mem_get_info(device.torch)[0]
    known = [limit for limit in (memory_limit_bytes(), free_memory_bytes()) if limit is not None]
    return min(known, default=None)


def peak_bytes(device: Device | None = None) -> int:
    """The most memory so far: of the tensors on a GPU, of the whole process elsewhere."""
    if device is not None and device.kind == "cuda":
        return torch.cuda.max_memory_allocated(device.torch)
    # Linux counts a parent's too in getrusage, so its own words are taken.
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0  # Windows does not say
    # macOS counts in bytes, others in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
