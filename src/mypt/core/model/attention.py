"""Attention itself: which positions see which, and the mixing of their values.

Letters: B batch, H heads, T positions, D head width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention


def attend(
    query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Mix values by how well their keys fit each query (Vaswani et al., 2017), shape (B, H, T, D).

    Args:
        query_BHTD: of the new positions.
        key_BHTD: of all positions a query may see, as many as the values.
        value_BHTD: what is mixed.
        mask: true where a query sees a key. None: a single query sees all, several see themselves and earlier ones.
        dropout: the share of the weights that are dropped.
    """
    is_causal = mask is None and query_BHTD.shape[2] > 1
    return F.scaled_dot_product_attention(
        query_BHTD, key_BHTD, value_BHTD, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
    )


def offset_causal_mask(past: int, length: int, device: torch.device) -> Tensor:
    """Position i of the new ones sees all past positions and new ones up to i. Shape (T, past + T)."""
    return torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)


def document_mask(documents_BT: Tensor) -> Tensor:
    """Each position sees itself and earlier ones of its own document. Shape (B, 1, T, T)."""
    T = documents_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    return ((documents_BT[:, :, None] == documents_BT[:, None, :]) & causal_TT)[:, None]
