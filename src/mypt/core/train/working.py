"""The weights that a step computes with: the master weights themselves, or a copy of them in bf16 or fp16.

    masters (fp32) -> working weights (bf16) -> gradients (bf16) -> gradients of the masters (fp32) -> update

The optimizer sees fp32 only, so a small update is never lost (Micikevicius et al., 2018). Everything between embedding
and loss is in the narrow type, in memory too. bf16 has fp32's range; fp16 has not, so its loss is scaled (scaling.py).
"""

import copy

import torch
from torch import Tensor, nn

from mypt.core.model.gpt import GPT

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class WorkingWeights:
    """A model to compute with, and the way of its gradients back to the masters."""

    def __init__(self, masters: GPT, precision: str) -> None:
        """Copy the masters where the precision is not theirs."""
        self.model = _narrowed(masters, NARROW[precision]) if precision in NARROW else masters
        pairs = zip(masters.parameters(), self.model.parameters(), strict=True)
        self._pairs: list[tuple[Tensor, Tensor]] = [pair for pair in pairs if pair[0] is not pair[1]]

    def gather(self) -> None:
        """Add the gradients to those of the masters. Once per backward pass: a narrow sum would lose small parts."""
        for master, working in self._pairs:
            if working.grad is None:
                continue
            if master.grad is None:
                master.grad = working.grad.to(master.dtype)
            else:
                master.grad += working.grad
            working.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what the optimizer made of the masters."""
        if self._pairs:
            masters, workings = zip(*self._pairs, strict=True)
            torch._foreach_copy_(list(workings), list(masters))

    def forget(self) -> None:
        """Drop gradients: those of a step that is done, or that could not be finished."""
        self.model.zero_grad(set_to_none=True)


def _narrowed(masters: GPT, dtype: torch.dtype) -> GPT:
    """A copy in a narrow type that shares the embeddings: the gradient of a frequent token is a sum of many rows."""
    shared: dict[int, object] = {id(part): part for part in masters.modules() if isinstance(part, nn.Embedding)}
    model = copy.deepcopy(masters, shared)
    for working, master in zip(model.parameters(), masters.parameters(), strict=True):
        if working is not master:
            working.data = master.data.to(dtype)
    return model
