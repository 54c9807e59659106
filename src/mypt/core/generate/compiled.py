"""Whether tokens are read by the model as it is written, or faster: by compiled code on CPUs, by recordings on GPUs."""

from dataclasses import replace

from mypt.core.device import Device
from mypt.core.generate.native.code import CODE
from mypt.core.generate.native.finder import NativeFinder
from mypt.core.generate.native.reader import NativeReader
from mypt.core.generate.reader import ModelReader, Reader
from mypt.core.generate.recorded import RecordedReader
from mypt.core.generate.sampler import Finder, likeliest
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.native.library import UnavailableError, open_library
from mypt.errors import UsageError
from mypt.records.run import Compile


def open_reader(model: GPT, cache: KeyValueCache, device: Device) -> Reader:
    """The reader that a device is to have."""
    if device.compiled and device.kind == "cuda":
        return RecordedReader(model, cache, device.torch)
    reader = ModelReader(model, cache, device.torch)
    return NativeReader(open_library(CODE), model, cache, reader) if device.compiled else reader


def open_finder(model: GPT, device: Device) -> Finder:
    """What finds the likeliest ids in what a model gives."""
    return NativeFinder(open_library(CODE), model) if device.compiled and device.kind == "cpu" else likeliest


def choose_reader(device: Device, wanted: Compile) -> Device:
    """Decide whether a device is to read by compiled code, or by recordings.

    Args:
        device: where a model is, whose weights may be in int8 where the device's precision is fp32.
        wanted: 'auto' is on CPUs, wherever they can; recordings were not measured yet.

    Raises:
        UsageError: where it is told to and cannot.
    """
    if wanted == "off" or (wanted == "auto" and device.kind == "cuda"):
        return device
    try:
        _require(device)
    except UnavailableError as problem:
        if wanted == "on":
            hint = "Leave --compile out; on CPUs it needs gcc."
            raise UsageError(f"--compile on: no compiled code: {problem}", hint=hint) from None
        return device
    return replace(device, compiled=True)


def _require(device: Device) -> None:
    if device.kind == "mps" or (device.kind == "cpu" and device.precision == "fp16"):
        raise UnavailableError("there is none for Apple's GPUs, nor for fp16 on CPUs")
    if device.kind == "cpu":
        open_library(CODE)
