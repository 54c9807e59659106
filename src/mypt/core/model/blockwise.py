"""Attention that passes over what its mask hides, for compiled steps on a GPU (FlexAttention: Dong et al., 2024).

Torch's own kernels know the causal mask alone: any other is a tensor of all pairs of positions to them, read and added.
This one gets a list of blocks of 128 x 128 positions, and most documents are shorter than a context. Its gradients are
the same bits every time, at less cost than those of the others when they have to be.

Letters: B batch, H heads, T positions, D head width.
"""

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # loads torch's compiler
    from torch.nn.attention.flex_attention import BlockMask

_WIDTHS = (16, 32, 64, 128)
"""Of heads: powers of two, which its kernels are written for."""


def does_blockwise(head_width: int, dtype: torch.dtype, device: torch.device, dropout: float) -> bool:
    """Whether compiled attention goes by blocks; weights of such attention cannot be dropped."""
    is_narrow = dtype.itemsize == 2  # noqa: PLR2004 - two bytes
    return device.type == "cuda" and is_narrow and not dropout and head_width in _WIDTHS


def block_mask(ids_BT: Tensor, documents_BT: Tensor | None) -> "BlockMask":
    """Each position sees itself and earlier ones, of its own document alone where documents are given."""
    from torch.nn.attention.flex_attention import create_block_mask

    B, T = ids_BT.shape
    if documents_BT is None:
        return _causal_blocks(T, ids_BT.device)

    def sees(b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents_BT[b, query] == documents_BT[b, key])

    return create_block_mask(sees, B, None, T, T, device=ids_BT.device)


def attend_blockwise(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, mask: "BlockMask") -> Tensor:
    """As `attend`, shape (B, H, T, D)."""
    from torch.nn.attention.flex_attention import flex_attention

    mixed_BHTD = flex_attention(query_BHTD, key_BHTD, value_BHTD, block_mask=mask)
    assert isinstance(mixed_BHTD, Tensor), "nothing else was asked for"
    return mixed_BHTD


@cache
def _causal_blocks(T: int, device: torch.device) -> "BlockMask":
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    return create_block_mask(sees, None, None, T, T, device=device)
