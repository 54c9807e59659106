"""What the C files are told: their structs, with the same fields, and where tensors are.

Letters: as in calls.py.
"""

from ctypes import Structure, c_float, c_int32, c_int64, c_uint64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = {torch.float32: 0, torch.bfloat16: 1}
MOST_DROPPED = 1 - 2.0**-24
"""Of a share: more is all."""


class AttentionStruct(Structure):
    """`Attention` of heads.h."""

    _fields_ = (
        *((name, c_void_p) for name in ("inputs", "query_norm", "key_norm", "cosines", "sines", "documents")),
        *((name, c_int64) for name in ("B", "T", "H", "G", "D", "kind")),
        ("seed", c_uint64),
        ("dropout", c_float),
        ("eps", c_float),
        ("threads", c_int32),
    )


class NormStruct(Structure):
    """`Norm` of norm.c."""

    _fields_ = (
        *((name, c_void_p) for name in ("inputs", "added", "sums", "weights", "biases", "means", "factors")),
        *((name, c_int64) for name in ("rows", "width", "kind")),
        ("eps", c_float),
        ("threads", c_int32),
    )


class NormGradientsStruct(Structure):
    """`Gradients` of norm.c."""

    _fields_ = tuple((name, c_void_p) for name in ("outputs", "sums", "inputs", "weights", "biases"))


PARTS = (
    *(
        "attention_norm",
        "attention_norm_bias",
        "heads",
        "heads_bias",
        "query_norm",
        "key_norm",
        "output",
        "output_bias",
    ),
    *("mlp_norm", "mlp_norm_bias", "gate", "up", "up_bias", "down", "down_bias"),
)
"""What has weights in a block, by the names of block.h."""


class PartsStruct(Structure):
    """`Parts` of block.h."""

    _fields_ = tuple((name, c_void_p) for name in PARTS)


class BlockStruct(Structure):
    """`Block` of block.h."""

    _fields_ = (
        ("weights", PartsStruct),
        *((name, c_void_p) for name in ("inputs", "outputs", "cosines", "sines", "documents", "means", "factors")),
        *((name, c_void_p) for name in ("heads", "mixed", "sums", "middle", "gates", "ups")),
        *((name, c_int64) for name in ("B", "T", "C", "I", "H", "G", "D", "activation")),
        *((name, c_float) for name in ("eps", "head_eps")),
        ("threads", c_int32),
    )


class MoveStruct(Structure):
    """`Move` of muon.c."""

    _fields_ = (
        *((name, c_void_p) for name in ("weights", "momentum", "row_squares", "gradients", "directions")),
        *((name, c_int64) for name in ("rows", "columns", "kind")),
        *((name, c_float) for name in ("rate", "shrink", "momentum_share", "row_share")),
        ("threads", c_int32),
    )


class HeadStruct(Structure):
    """`Head` of head.c."""

    _fields_ = (
        *((name, c_void_p) for name in ("rows", "weights", "targets", "losses", "row_gradients", "weight_gradients")),
        *((name, c_int64) for name in ("N", "C", "V")),
        ("weight", c_float),
        ("threads", c_int32),
    )


class NormWeights(NamedTuple):
    """What a norm is made of beside its inputs."""

    weight_C: Tensor
    bias_C: Tensor | None
    eps: float
    is_centered: bool
    """LayerNorm; RMSNorm is not."""


class NormMoments(NamedTuple):
    """What was taken from each row, if anything was, and what it was multiplied by."""

    means_N: Tensor | None
    factors_N: Tensor


class Heads(NamedTuple):
    """What attention is made of beside its inputs."""

    query_heads: int
    key_heads: int
    query_norm_D: Tensor | None = None
    key_norm_D: Tensor | None = None
    eps: float = 0.0
    cos_T1P: Tensor | None = None
    sin_T1P: Tensor | None = None
    documents_BT: Tensor | None = None
    dropout: float = 0.0
    seed: int = 0
    """Of what is dropped."""


def attention_struct(inputs_BTW: Tensor, heads: Heads) -> AttentionStruct:
    """All but what attention gives."""
    B, T, W = inputs_BTW.shape
    own = AttentionStruct(B=B, T=T, H=heads.query_heads, G=heads.key_heads, eps=heads.eps)
    own.D = W // (own.H + 2 * own.G)
    own.threads, own.kind = how(inputs_BTW)
    own.seed, own.dropout = heads.seed, min(heads.dropout, MOST_DROPPED)
    own.inputs, own.documents = at(inputs_BTW), at(heads.documents_BT, torch.int64)
    own.query_norm, own.key_norm = (at(norm, inputs_BTW.dtype) for norm in (heads.query_norm_D, heads.key_norm_D))
    own.cosines, own.sines = (at(angles, torch.float32) for angles in (heads.cos_T1P, heads.sin_T1P))
    return own


def norm_struct(x_NC: Tensor, weights: NormWeights, moments: NormMoments) -> NormStruct:
    """All but what is added."""
    own = NormStruct(rows=len(x_NC), width=x_NC.shape[1], eps=weights.eps)
    assert weights.weight_C.shape == x_NC.shape[1:]
    own.threads, own.kind = how(x_NC)
    own.inputs, own.weights, own.biases = (at(each, x_NC.dtype) for each in (x_NC, weights.weight_C, weights.bias_C))
    own.means, own.factors = map(at, moments)
    return own


def at(tensor: Tensor | None, dtype: torch.dtype | None = None) -> int | None:
    """Where numbers are, which are of this type."""
    if tensor is None:
        return None
    assert tensor.is_contiguous(), "rows lie one after another"
    assert tensor.is_cpu
    assert dtype is None or tensor.dtype == dtype, f"{tensor.dtype} is not {dtype}"
    return tensor.data_ptr()


def how(tensor: Tensor) -> tuple[int, int]:
    """By how many threads, and in which type."""
    return torch.get_num_threads(), KINDS[tensor.dtype]
