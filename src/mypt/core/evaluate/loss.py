"""The validation loss: exact and repeatable over a fixed set of windows."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.data.batches import FixedWindows
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
    """Average the loss over all windows; every token counts the same.

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
            inputs_BT, targets_BT = windows.batch(first, batch_size)
            with device.autocast():
                losses = model.losses(to_device(inputs_BT, device), to_device(targets_BT, device))
            # Summed in double precision: the order of the batches leaves no trace.
            total_nats += float(losses.cpu().double().sum())
            tokens += targets_BT.size
            text_bytes += int(bytes_per_id[targets_BT].sum())
    finally:
        model.train(was_training)
    return Score(loss=total_nats / tokens, bits_per_byte=total_nats / math.log(2) / max(text_bytes, 1))


def to_device(ids: NDArray[np.int64], device: Device) -> torch.Tensor:
    """Move ids to where the model is."""
    tensor = torch.from_numpy(np.ascontiguousarray(ids))
    if device.kind == "cuda":
        return tensor.pin_memory().to(device.torch, non_blocking=True)
    return tensor.to(device.torch)
