"""The weights that a step computes with: the master weights themselves, or a copy of them in bf16 or fp16.

    masters (fp32) -> working weights (bf16) -> gradients (bf16) -> gradients of the masters (fp32) -> update

The optimizer sees fp32 only, so a small update is never lost (Micikevicius et al., 2018). Everything between embedding
and loss is in the narrow type, in memory too. bf16 has fp32's range; fp16 has not, so its loss is scaled (scaling.py).
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mypt.core.device import NARROW
from mypt.core.model.gpt import GPT
from mypt.core.model.kernels.functions import Kernels

_Move: TypeAlias = Callable[[list[Tensor], list[Tensor]], object]
_TOGETHER = 2**20
"""Numbers of gradients that are moved by one call on a CPU."""


class WorkingWeights:
    """A model to compute with, and the way of its gradients back to the masters."""

    def __init__(self, masters: GPT, precision: str, kernels: Kernels | None = None) -> None:
        """Copy the masters where the precision is not theirs; by kernels if there are some."""
        self.model = _narrowed(masters, NARROW[precision]) if precision in NARROW else masters
        pairs = zip(masters.parameters(), self.model.parameters(), strict=True)
        self._pairs: list[tuple[Tensor, Tensor]] = [pair for pair in pairs if pair[0] is not pair[1]]
        # A GPU likes few kernels; elsewhere large gradients take the room that those before left.
        most = math.inf if masters.final_norm.weight.is_cuda else _TOGETHER
        self._groups = _groups(self._pairs, most)
        self._copy: _Move = torch._foreach_copy_ if kernels is None else kernels.calls.convert

    def gather(self) -> None:
        """Add the gradients to those of the masters. Once per backward pass: a narrow sum would lose small parts."""
        for group in self._groups:
            found = [pair for pair in group if pair[1].grad is not None]
            _move_gradients([pair for pair in found if pair[0].grad is not None], torch._foreach_add_)
            new = [pair for pair in found if pair[0].grad is None]
            for master, _ in new:
                master.grad = torch.empty_like(master)
            _move_gradients(new, self._copy)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what the optimizer made of the masters."""
        if self._pairs:
            masters, workings = zip(*self._pairs, strict=True)
            self._copy(list(workings), list(masters))

    def forget(self) -> None:
        """Drop gradients: those of a step that is done, or that could not be finished."""
        for _, working in self._pairs:
            working.grad = None


def _groups(pairs: Sequence[tuple[Tensor, Tensor]], most: float) -> list[list[tuple[Tensor, Tensor]]]:
    """Neighbours, up to so many numbers together; larger ones alone."""
    groups: list[list[tuple[Tensor, Tensor]]] = []
    count = 0
    for pair in pairs:
        count += pair[0].numel()
        if not groups or count > most:
            groups.append([])
            count = pair[0].numel()
        groups[-1].append(pair)
    return groups


def _move_gradients(pairs: Sequence[tuple[Tensor, Tensor]], put: _Move) -> None:
    """Put the gradients of working weights into those of their masters, which are there."""
    into = [master.grad for master, _ in pairs if master.grad is not None]
    parts = [working.grad for _, working in pairs if working.grad is not None]
    if parts:
        put(into, parts)
    for _, working in pairs:
        working.grad = None


def _narrowed(masters: GPT, dtype: torch.dtype) -> GPT:
    """A copy in a narrow type that shares the embeddings: the gradient of a frequent token is a sum of many rows."""
    shared: dict[int, object] = {id(part): part for part in masters.modules() if isinstance(part, nn.Embedding)}
    model = copy.deepcopy(masters, shared)
    for working, master in zip(model.parameters(), masters.parameters(), strict=True):
        if working is not master:
            working.data = master.data.to(dtype)
    return model
