"""A linear layer that says of which matrices it is made."""

from collections.abc import Sequence

from torch import nn


class FusedLinear(nn.Linear):
    """Several projections of one input as one matrix product: their rows stand one below the other.

    An optimizer that looks at whole matrices has to know where each one ends.
    """

    def __init__(self, in_features: int, row_sizes: Sequence[int], *, bias: bool) -> None:
        """Make room for one projection of each size."""
        super().__init__(in_features, sum(row_sizes), bias=bias)
        self.row_sizes = tuple(row_sizes)
