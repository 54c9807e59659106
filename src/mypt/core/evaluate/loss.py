"""The validation loss: exact and repeatable over a fixed set of windows."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.data.batches import NO_TARGET, Batch, FixedWindows
from mypt.core.device import Device
from mypt.core.model.gpt import GPT


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss in nats per token, and in bits per byte of the text it predicts.

    Bits per byte do not depend on the tokenizer, so models with different ones compare.
    """

    loss: float
    bits_per_byte: float


@torch.no_grad()
def score(model: GPT, windows: FixedWindows, batch_size: int, device: Device, bytes_per_id: NDArray[np.int64]) -> Score:
    """Average the loss over all windows; every token that is to be predicted counts the same.

    Args:
        model: left in the mode it came in.
        windows: the fixed windows.
        batch_size: windows at a time.
        device: where to compute.
        bytes_per_id: UTF-8 bytes of each id, shape (V,).
    """
    was_training = model.training
    model.eval()
    total_nats, tokens, text_bytes = 0.0, 0, 0
    try:
        for first in range(0, len(windows), batch_size):
            batch = windows.batch(first, batch_size)
            with device.autocast():
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
