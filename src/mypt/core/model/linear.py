"""Linear layers, and those that say of which matrices they are made."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:  # they look at these layers themselves
    from mypt.core.model.kernels.functions import Kernels


class Linear(nn.Linear):
    """A linear layer whose gradients may come by another way."""

    kernels: "Kernels | None" = None
    """What computes instead while training, where a training has some."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map the last dimension."""
        if self.kernels is not None and self.training and self.kernels.do_linear(input, self.weight):
            return self.kernels.linear(input, self.weight, self.bias)
        return super().forward(input)


class FusedLinear(Linear):
    """Several projections of one input as one matrix product: their rows stand one below the other.

    An optimizer that looks at whole matrices has to know where each one ends.
    """

    def __init__(self, in_features: int, row_sizes: Sequence[int], *, bias: bool) -> None:
        """Make room for one projection of each size."""
        super().__init__(in_features, sum(row_sizes), bias=bias)
        self.row_sizes = tuple(row_sizes)
