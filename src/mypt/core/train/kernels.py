"""Whether the steps of a run are computed by our own kernels on a CPU: decided before the first one, for the whole run.

Kernels round otherwise than torch, so a run that goes on does as it did before.
"""

from collections.abc import Generator
from dataclasses import replace

from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.device import Device
from mypt.core.model.kernels.code import CODE, NO_KERNELS, open_kernels
from mypt.core.native.library import UnavailableError, is_kept, require_compiler
from mypt.errors import UsageError
from mypt.events import Event, Noted, Warned
from mypt.records.run import RunConfig


def with_kernels(config: RunConfig, device: Device, own: Snapshot | None) -> Generator[Event, None, Device]:
    """The device, with kernels where the run is to have some and they can be had; the first time they are compiled.

    Raises:
        UsageError: where a new run is told to have some and cannot.
    """
    training = config.training
    if (training.kernels, training.compile) == ("on", "on"):
        raise UsageError("--kernels on: compiled steps have none", hint="Leave --kernels or --compile out.")
    if not _are_wanted(config, own):
        return device
    try:
        _require(device)
        if _can_compile(device) and not is_kept(CODE):
            yield Noted("compiling kernels …")
        open_kernels()
    except UnavailableError as problem:
        if training.kernels == "on" and own is None:
            hint = "Leave --kernels out. They need gcc, and a folder (MYPT_CACHE) to be kept in."
            raise UsageError(f"--kernels on: {problem}", hint=hint) from None
        if own is not None:
            yield Warned(f"steps are not computed by kernels: {problem}. --kernels on takes them up again.")
        elif _can_compile(device):
            yield Noted(f"there are no kernels: {problem}")
        return device
    return replace(device, kernels=True)


def _can_compile(device: Device) -> bool:
    try:
        _require(device)
        require_compiler()
    except UnavailableError:
        return False
    return True


def _are_wanted(config: RunConfig, own: Snapshot | None) -> bool:
    training = config.training
    if training.compile == "on" or training.kernels == "off":
        return False
    return training.kernels == "on" or own is None or own.training.versions.get("kernels", NO_KERNELS) != NO_KERNELS


def _require(device: Device) -> None:
    if device.kind != "cpu" or device.precision == "fp16":
        raise UnavailableError("there are kernels for CPUs alone, in fp32 and bf16")
