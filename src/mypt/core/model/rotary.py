"""Rotary positions (Su et al., 2021): a position is an angle by which pairs of numbers are turned.

The product of a query and a key then depends on how far apart they are, and on nothing else of
their positions.

Letters: B batch, T positions, H heads, D head width, P pairs (D / 2).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """The angles of some positions, as cosines and sines in fp32; computed anew, so no cast of a model rounds them."""

    cos_T1P: Tensor
    """Or one for each row: (B, T, 1, P)."""
    sin_T1P: Tensor

    def turn(self, x_BTHD: Tensor) -> Tensor:
        """Turn each head's vector: number p of its first half and number p of its second half are a pair."""
        first, second = x_BTHD.chunk(2, dim=-1)
        cos, sin = self.cos_T1P, self.sin_T1P
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rotation_at(positions_T: Tensor, head_width: int, base: float) -> Rotation:
    """The angles of positions, also of shape (B, T): pair p turns by base^(-2p/D) from one position to the next."""
    evens_P = torch.arange(0, head_width, 2, dtype=torch.float32, device=positions_T.device)
    angles_T1P = positions_T.float()[..., None, None] * (1.0 / base ** (evens_P / head_width))
    return Rotation(angles_T1P.cos(), angles_T1P.sin())
