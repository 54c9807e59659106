"""Attention itself: which positions see which, and the mixing of their values.

Letters: B batch, H heads, T positions, D head width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.model.blockwise import attend_blockwise
from mypt.core.model.cache import CacheRows
from mypt.records.memory import WRITTEN_OUT_KEYS

if TYPE_CHECKING:  # loads torch's compiler
    from torch.nn.attention.flex_attention import BlockMask


class Documents(NamedTuple):
    """The mask as our own kernels take it."""

    of_BT: Tensor
    """The document of each position, as any number."""


Mask: TypeAlias = "Tensor | BlockMask | Documents | None"
MaskMaker: TypeAlias = Callable[[Tensor, Tensor | None], Mask]
"""Who sees whom: from ids, and the document of each, both of shape (B, T)."""


def attend(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, mask: Mask = None, dropout: float = 0.0) -> Tensor:
    """Mix values by how well their keys fit each query (Vaswani et al., 2017), shape (B, H, T, D).

    Args:
        query_BHTD: of the new positions.
        key_BHTD: of all positions a query may see, as many as the values.
        value_BHTD: what is mixed.
        mask: true where a query sees a key, or a list of blocks, while compiled code is made. None: a single query
            sees all, several see themselves and earlier ones.
        dropout: the share of the weights that are dropped.
    """
    assert not isinstance(mask, Documents), "for kernels alone"
    if mask is not None and not isinstance(mask, Tensor):
        return attend_blockwise(query_BHTD, key_BHTD, value_BHTD, mask)
    is_causal = mask is None and query_BHTD.shape[2] > 1
    if torch.compiler.is_compiling() and _pays_written_out(query_BHTD, key_BHTD):
        return _written_out(query_BHTD, key_BHTD, value_BHTD, mask, dropout)
    return F.scaled_dot_product_attention(
        query_BHTD, key_BHTD, value_BHTD, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
    )


def attend_cached(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, cache: CacheRows, layer: int) -> Tensor:
    """Let new positions see themselves, those before them, and all in the cache, where they are stored too.

    On a CPU a row of a batch is given the same bits as alone.

    Args:
        query_BHTD: of the new positions.
        key_BHTD: theirs; there may be fewer heads, each for as many neighbouring heads of queries.
        value_BHTD: as the keys.
        cache: the rows that are extended.
        layer: whose keys and values they are.
    """
    B, H, T, D = query_BHTD.shape
    past = cache.lengths
    keys, values = cache.extend(layer, key_BHTD, value_BHTD)
    if T > 1:
        mask = offset_causal_mask(past[0], T, query_BHTD.device) if past[0] else None
        keys, values = repeated(H // keys.shape[1], keys, values)
        return attend(query_BHTD, keys, values, mask)
    # Queries that share a key look like positions, and none of them hides anything from another.
    query_BHGD = query_BHTD.reshape(B, keys.shape[1], -1, D)
    if cache.ends_B is None:
        mixed_BHGD = F.scaled_dot_product_attention(query_BHGD, keys, values)
    elif past and query_BHTD.device.type == "cpu":
        pieces = zip(query_BHGD.split(1), keys.split(1), values.split(1), past, strict=True)
        mixed_BHGD = torch.cat(
            [F.scaled_dot_product_attention(q, k[:, :, : n + 1], v[:, :, : n + 1]) for q, k, v, n in pieces]
        )
    else:
        mask = (torch.arange(keys.shape[2], device=keys.device) <= cache.ends_B[:, None])[:, None, None]
        mixed_BHGD = F.scaled_dot_product_attention(query_BHGD, keys, values, attn_mask=mask)
    return mixed_BHGD.reshape(B, H, 1, D)


def repeated(times: int, key_BHTD: Tensor, value_BHTD: Tensor) -> tuple[Tensor, Tensor]:
    """Give each head of queries a head of keys and values, where several share one."""
    if times == 1:
        return key_BHTD, value_BHTD
    return key_BHTD.repeat_interleave(times, dim=1), value_BHTD.repeat_interleave(times, dim=1)


def _pays_written_out(query_BHTD: Tensor, key_BHTD: Tensor) -> bool:
    """Whether compiled code is faster than torch's own kernel: on CPUs in 16 bits, where that is slow backwards."""
    is_narrow = query_BHTD.dtype.itemsize == 2  # noqa: PLR2004 - two bytes
    return is_narrow and query_BHTD.device.type == "cpu" and key_BHTD.shape[2] <= WRITTEN_OUT_KEYS


def _written_out(
    query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """The same, as two products with a softmax between them, which a compiler makes one pass of."""
    T = query_BHTD.shape[2]
    if mask is None:
        mask = offset_causal_mask(0, T, query_BHTD.device)
    scores_BHTT = (query_BHTD * query_BHTD.shape[3] ** -0.5) @ key_BHTD.mT
    wide = torch.promote_types(scores_BHTT.dtype, torch.float32)
    weights_BHTT = scores_BHTT.to(wide).masked_fill(~mask, -torch.inf).softmax(dim=3).to(value_BHTD.dtype)
    return F.dropout(weights_BHTT, dropout) @ value_BHTD


def offset_causal_mask(past: int, length: int, device: torch.device) -> Tensor:
    """Position i of the new ones sees all past positions and new ones up to i. Shape (T, past + T)."""
    return torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)


def attention_mask(_ids_BT: Tensor, documents_BT: Tensor | None) -> Tensor | None:
    """The mask for `attend`: none where it is the causal one."""
    return None if documents_BT is None else document_mask(documents_BT)


def document_mask(documents_BT: Tensor) -> Tensor:
    """Each position sees itself and earlier ones of its own document. Shape (B, 1, T, T)."""
    T = documents_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    return ((documents_BT[:, :, None] == documents_BT[:, None, :]) & causal_TT)[:, None]
