"""Whether tokens are read by the model itself, or, on CPUs, by compiled code that does the same in one call."""

from dataclasses import replace

from mypt.core.device import Device
from mypt.core.generate.native.library import UnavailableError, open_library
from mypt.core.generate.native.reader import NativeReader
from mypt.core.generate.reader import ModelReader, Reader
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.errors import UsageError
from mypt.records.run import Compile


def open_reader(model: GPT, cache: KeyValueCache, device: Device) -> Reader:
    """The reader that a device is to have."""
    reader = ModelReader(model, cache, device.torch)
    return NativeReader(open_library(), model, cache, reader) if device.compiled else reader


def choose_reader(device: Device, wanted: Compile) -> Device:
    """Decide whether a device is to read by compiled code.

    Args:
        device: where a model is, whose weights may be in int8 where the device's precision is fp32.
        wanted: 'auto' is wherever it can.

    Raises:
        UsageError: where it is told to and cannot.
    """
    if wanted == "off":
        return device
    try:
        _require(device)
    except UnavailableError as problem:
        if wanted == "on":
            hint = "Install gcc, or leave --compile out."
            raise UsageError(f"--compile on: no compiled code: {problem}", hint=hint) from None
        return device
    return replace(device, compiled=True)


def _require(device: Device) -> None:
    if device.kind != "cpu" or device.precision == "fp16":
        raise UnavailableError("there is none for GPUs, nor for fp16")
    open_library()
