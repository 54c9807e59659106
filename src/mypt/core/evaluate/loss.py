"""The validation loss: exact and repeatable over a fixed set of windows."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.data.batches import NO_TARGET, Batch, FixedWindows
from mypt.core.device import Device
from mypt.core.evaluate.score import Score
from mypt.core.model.gpt import GPT


@torch.no_grad()
def score(
    model: GPT,
    windows: FixedWindows,
    batch_size: int,
    device: Device,
    bytes_per_id: NDArray[np.int64],
    between: Callable[[], None] = lambda: None,
) -> Score:
    """Average the loss over all windows; every token that is to be predicted counts the same.

    Args:
        model: left in the mode it came in.
        windows: the fixed windows.
        batch_size: windows at a time.
        device: where to compute.
        bytes_per_id: UTF-8 bytes of each id, shape (V,).
        between: called before every batch; what it raises ends the work.
    """
    was_training = model.training
    model.eval()
    total_nats, tokens, text_bytes = 0.0, 0, 0
    try:
        for first in range(0, len(windows), batch_size):
            between()
            batch = windows.batch(first, batch_size)
            losses = model.losses(*to_device(host_tensors(batch, device), device))
            # Summed in double precision: the order of the batches leaves no trace.
            total_nats += float(losses.cpu().double().sum())
            predicted = batch.targets_BT[batch.targets_BT != NO_TARGET]
            tokens += predicted.size
            text_bytes += int(bytes_per_id[predicted].sum())
    finally:
        model.train(was_training)
    return Score(loss=total_nats / max(tokens, 1), bits_per_byte=total_nats / math.log(2) / max(text_bytes, 1))


class Tensors(NamedTuple):
    """A batch as torch sees it, each of shape (B, T)."""

    inputs_BT: torch.Tensor
    targets_BT: torch.Tensor
    documents_BT: torch.Tensor | None

    def split(self, sequences: int) -> "list[Tensors]":
        """The same batch in pieces of at most so many sequences."""
        if len(self.inputs_BT) <= sequences:
            return [self]
        inputs, targets = self.inputs_BT.split(sequences), self.targets_BT.split(sequences)
        documents = [None] * len(inputs) if self.documents_BT is None else self.documents_BT.split(sequences)
        return [Tensors(*piece) for piece in zip(inputs, targets, documents, strict=True)]

    def predicted(self) -> torch.Tensor:
        """How many tokens are to be predicted, a scalar on the device; never 0."""
        return (self.targets_BT >= 0).sum().clamp(min=1)


def host_tensors(batch: Batch, device: Device) -> Tensors:
    """A batch in memory that the device copies from: pinned for CUDA."""

    def host(ids_BT: NDArray[np.int64]) -> torch.Tensor:
        tensor_BT = torch.from_numpy(np.ascontiguousarray(ids_BT))
        return tensor_BT.pin_memory() if device.kind == "cuda" else tensor_BT

    documents_BT = None if batch.documents_BT is None else host(batch.documents_BT)
    return Tensors(host(batch.inputs_BT), host(batch.targets_BT), documents_BT)


def to_device(batch: Tensors, device: Device) -> Tensors:
    """Move a batch to where the model is; for CUDA the copy runs beside other work."""

    def moved(ids_BT: torch.Tensor) -> torch.Tensor:
        return ids_BT.to(device.torch, non_blocking=device.kind == "cuda")

    documents_BT = None if batch.documents_BT is None else moved(batch.documents_BT)
    return Tensors(moved(batch.inputs_BT), moved(batch.targets_BT), documents_BT)
