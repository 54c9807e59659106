"""The one place where tokens are scored: for training's evaluations and for `mypt evaluate`."""

from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mypt.core.data.batches import NO_TARGET, Batch
from mypt.core.device import Device
from mypt.core.evaluate.score import Score, Totals
from mypt.core.model.gpt import GPT


class Windows(Protocol):
    """Windows of tokens in a fixed order."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, first: int, count: int) -> Batch:
        """Give windows first .. first + count - 1 (fewer at the end)."""
        ...

    def passed_over(self, first: int) -> int:
        """How many first positions of all windows from `first` on have no target."""
        ...


def score(
    model: GPT,
    windows: Windows,
    batch_size: int,
    device: Device,
    bytes_per_id: NDArray[np.int64],
    between: Callable[[], None] = lambda: None,
) -> Score:
    """Average the loss over all windows; every token that is to be predicted counts the same.

    Args:
        model: left in the mode it came in.
        windows: what to score.
        batch_size: windows at a time.
        device: where to compute.
        bytes_per_id: UTF-8 bytes of each id, shape (V,).
        between: called before every batch; what it raises ends the work.
    """
    totals = Totals()
    for totals in running_totals(model, windows, batch_size, device, bytes_per_id, between):  # noqa: B007 - the last
        pass
    return Score(loss=totals.loss, bits_per_byte=totals.bits_per_byte)


@torch.no_grad()
def running_totals(
    model: GPT,
    windows: Windows,
    batch_size: int,
    device: Device,
    bytes_per_id: NDArray[np.int64],
    between: Callable[[], None] = lambda: None,
) -> Generator[Totals]:
    """Score all windows; after every batch give the sums so far. Arguments as of `score`."""
    was_training = model.training
    model.eval()
    totals = Totals()
    try:
        for first in range(0, len(windows), batch_size):
            between()
            batch = windows.batch(first, batch_size)
            scores = model.scores(*to_device(host_tensors(batch, device), device), windows.passed_over(first))
            predicted = batch.targets_BT[batch.targets_BT != NO_TARGET]
            totals += Totals(
                # Summed in double precision: the order of the batches leaves hardly a trace.
                nats=float(scores.losses_N.cpu().double().sum()),
                hits=int(scores.hits_N.sum()),
                tokens=predicted.size,
                text_bytes=int(bytes_per_id[predicted].sum()),
            )
            yield totals
    finally:
        model.train(was_training)


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
