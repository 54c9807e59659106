"""What reads tokens into a cache: the model itself, or, where it pays, the same model in one call of compiled code.

Letters: B rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.device import Device
from mypt.core.generate.native.library import UnavailableError, open_library
from mypt.core.generate.native.reader import NativeReader
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.errors import UsageError
from mypt.records.run import Compile


class Reader(Protocol):
    """Extends the rows of one cache."""

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V)."""


class ModelReader:
    """Reads by the model's own forward pass, on any device."""

    def __init__(self, model: GPT, cache: KeyValueCache, device: Device) -> None:
        self._model, self._cache, self._device = model, cache, device.torch

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Read the tokens that follow those of a row."""
        self._model.hidden(torch.tensor([list(ids)], device=self._device), self._cache.rows(row, 1))

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Read one token in each of the first rows; logits of the next ones, shape (B, V)."""
        ids_B1 = torch.tensor(ids, device=self._device)[:, None]
        hidden_B1C = self._model.hidden(ids_B1, self._cache.rows(0, len(ids)))
        return self._model.logits(hidden_B1C)[:, 0].float().cpu().numpy()


def open_reader(model: GPT, cache: KeyValueCache, device: Device) -> Reader:
    """The reader that a device is to have."""
    if device.compiled:
        return NativeReader(open_library(), model, cache)
    return ModelReader(model, cache, device)


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
            raise UsageError(f"--compile on: no compiled code: {problem}", hint="Leave --compile out.") from None
        return device
    return replace(device, compiled=True)


def _require(device: Device) -> None:
    if device.kind != "cpu" or device.precision == "fp16":
        raise UnavailableError("there is none for GPUs, nor for fp16")
    open_library()
