"""The functions of the C files here, given tensors of the types they know, and the memory for what they give.

Letters: B batch, T positions, H heads of queries, G heads of keys and values, D head width, N rows, R rows at once,
C width, V vocabulary, K matrices.
"""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mypt.core.native.library import Library

KINDS = {torch.float32: 0, torch.bfloat16: 1}
_MOST_DROPPED = 1 - 2.0**-24
ROWS_AT_ONCE = 64
"""Whose gradients of a norm's weights are one sum."""
_HEAD_WIDTHS, _FEWEST_TOKENS = 32, 4096
"""`head` knows widths that are multiples of this; smaller vocabularies have too little for several threads."""
_MOST_HIDDEN = 2**21
"""Numbers of hidden states: of more, the shares of their gradients would take too much memory."""
_TURNED_SIZES = 32
"""`turn` knows multiples of this."""
_P, _COUNT, _THREADS, _NUMBER = c_void_p, c_int64, c_int32, c_float


class _Attention(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("inputs", "query_norm", "key_norm", "cosines", "sines", "documents")),
        *((name, c_int64) for name in ("B", "T", "H", "G", "D", "kind")),
        ("seed", c_uint64),
        ("dropout", c_float),
        ("eps", c_float),
        ("threads", c_int32),
    )


class _Norm(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("inputs", "added", "sums", "weights", "biases", "means", "factors")),
        *((name, c_int64) for name in ("rows", "width", "kind")),
        ("eps", c_float),
        ("threads", c_int32),
    )


class _NormGradients(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("outputs", "sums", "inputs", "weights", "biases"))


class _Move(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weights", "momentum", "row_squares", "gradients", "directions")),
        *((name, c_int64) for name in ("rows", "columns", "kind")),
        *((name, c_float) for name in ("rate", "shrink", "momentum_share", "row_share")),
        ("threads", c_int32),
    )


class _Head(Structure):
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


@dataclass(frozen=True, slots=True)
class Calls:
    """A library, and how it is called."""

    library: Library

    def __post_init__(self) -> None:
        """Tell ctypes what each function takes."""
        arguments = {
            "mypt_attention_room": (_COUNT, _COUNT),
            "mypt_attend": (POINTER(_Attention), _P, _P, _P),
            "mypt_attend_back": (POINTER(_Attention), _P, _P, _P, _P, _P),
            "mypt_norm": (POINTER(_Norm), _P),
            "mypt_norm_back": (POINTER(_Norm), POINTER(_NormGradients)),
            "mypt_turn": (_P, _P, _COUNT, _COUNT, _COUNT, _THREADS),
            "mypt_gate": (_P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_gate_back": (_P, _P, _P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_gelu": (_P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_gelu_back": (_P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_drop": (_P, _P, _COUNT, c_uint64, _NUMBER, _THREADS, _COUNT),
            "mypt_loss": (_P, _P, _P, _NUMBER, _COUNT, _COUNT, _THREADS, _COUNT),
            "mypt_has_pairs": (),
            "mypt_muon_mix": (_P, _P, _P, _NUMBER, _COUNT, _COUNT, _THREADS, _COUNT),
            "mypt_muon_move": (POINTER(_Move), _P),
        }
        for name, types in arguments.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = types, None
        self.library.mypt_attention_room.restype = c_int64
        self.library.mypt_has_pairs.restype = c_int32
        if self.library.mypt_has_pairs():
            self.library.mypt_head.argtypes, self.library.mypt_head.restype = (POINTER(_Head), _P), None
            self.library.mypt_head_room.argtypes, self.library.mypt_head_room.restype = (_COUNT,) * 4, c_int64

    def attend(self, inputs_BTW: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
        """Mixed values, shape (B, T, H x D), and the logarithms of the sums of weights, shape (B, H, T)."""
        own = _struct(inputs_BTW, heads)
        mixed = inputs_BTW.new_empty(own.B, own.T, own.H * own.D)
        sums = inputs_BTW.new_empty(own.B, own.H, own.T, dtype=torch.float32)
        given = (mixed, sums, self._room(own))  # memory that only the call knew would be given away before it
        self.library.mypt_attend(ctypes.byref(own), *map(_at, given))
        return mixed, sums

    def attend_back(
        self, gradient_BTC: Tensor, inputs_BTW: Tensor, heads: Heads, sums_BHT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the inputs, and of both norms, shape (2, D)."""
        own = _struct(inputs_BTW, heads)
        gradients = torch.empty_like(inputs_BTW)
        norms = inputs_BTW.new_empty(own.B * own.G, 2, own.D, dtype=torch.float32)
        given = (gradient_BTC.contiguous(), sums_BHT, gradients, norms, self._room(own))
        self.library.mypt_attend_back(ctypes.byref(own), *map(_at, given))
        return gradients, norms.sum(0)

    def norm(
        self, x_NC: Tensor, added_NC: Tensor | None, weights: NormWeights
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Rows, to which others may be added before; these normed; their means, if taken; and what they are
        multiplied by, the latter of shape (N,).
        """
        sums = x_NC if added_NC is None else torch.empty_like(x_NC)
        normed, factors = torch.empty_like(x_NC), x_NC.new_empty(len(x_NC), dtype=torch.float32)
        means = torch.empty_like(factors) if weights.is_centered else None
        own = _norm_struct(x_NC, weights, means, factors)
        own.added, own.sums = _at(added_NC, x_NC.dtype), _at(sums)
        self.library.mypt_norm(ctypes.byref(own), _at(normed))
        return sums, normed, means, factors

    def norm_back(
        self,
        gradient_NC: Tensor,
        beside_NC: Tensor | None,
        sums_NC: Tensor,
        weights: NormWeights,
        means_N: Tensor | None,
        factors_N: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of the rows, to which others may be added, and of weights and biases, these in fp32."""
        gradients, own = torch.empty_like(sums_NC), _norm_struct(sums_NC, weights, means_N, factors_N)
        shares = sums_NC.new_empty(-(-len(sums_NC) // ROWS_AT_ONCE), sums_NC.shape[1], dtype=torch.float32)
        bias_shares = None if weights.bias_C is None else torch.empty_like(shares)
        beside = None if beside_NC is None else beside_NC.contiguous()
        given = (gradient_NC.contiguous(), beside, gradients, shares, bias_shares)
        self.library.mypt_norm_back(ctypes.byref(own), ctypes.byref(_NormGradients(*map(_at, given))))
        return gradients, shares.sum(0), None if bias_shares is None else bias_shares.sum(0)

    def does_turn(self, x_BTI: Tensor, weight_OI: Tensor) -> bool:
        """Whether `turned` can be given these, and gradients of both."""
        sizes = (x_BTI.numel() // x_BTI.shape[-1], *weight_OI.shape)
        return x_BTI.dtype == torch.bfloat16 and not any(size % _TURNED_SIZES for size in sizes)

    def turned(self, x_NC: Tensor) -> Tensor:
        """(C, N)."""
        N, C = x_NC.shape
        apart = N + _TURNED_SIZES  # rows a power of two apart share few lines of a cache
        turned = x_NC.new_empty(C, apart)
        given = (x_NC.contiguous(), turned)
        self.library.mypt_turn(*map(_at, given), N, C, apart, torch.get_num_threads())
        return turned[:, :N]

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """SiLU of one times the other; both of one shape."""
        assert (gate.shape, gate.dtype) == (up.shape, up.dtype)
        gated = torch.empty_like(gate)
        self.library.mypt_gate(*map(_at, (gate, up, gated)), gate.numel(), *_how(gate))
        return gated

    def gate_back(self, gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both."""
        gradients = torch.empty_like(gate), torch.empty_like(up)
        given = (gradient.contiguous(), gate, up, *gradients)
        self.library.mypt_gate_back(*map(_at, given), gate.numel(), *_how(gate))
        return gradients

    def gelu(self, x: Tensor) -> Tensor:
        """GELU in its tanh form."""
        outputs = torch.empty_like(x)
        self.library.mypt_gelu(_at(x), _at(outputs), x.numel(), *_how(x))
        return outputs

    def gelu_back(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Gradients of the inputs."""
        gradients = torch.empty_like(x)
        self.library.mypt_gelu_back(*map(_at, (gradient.contiguous(), x, gradients)), x.numel(), *_how(x))
        return gradients

    def drop(self, x: Tensor, dropout: float, seed: int) -> Tensor:
        """Zero for a share of numbers, the same ones for a seed."""
        outputs = torch.empty_like(x)
        self.library.mypt_drop(_at(x), _at(outputs), x.numel(), seed, min(dropout, _MOST_DROPPED), *_how(x))
        return outputs

    def loss(self, logits_RV: Tensor, targets_R: Tensor, divisor: Tensor) -> Tensor:
        """What `logits_to_gradient` does.

        Raises:
            IndexError: for a target that no logit is of.
        """
        if targets_R.max() >= logits_RV.shape[1]:
            raise IndexError(f"a target of {targets_R.max()} and {logits_RV.shape[1]} logits")
        losses = logits_RV.new_empty(len(logits_RV), dtype=torch.float32)
        given = _at(logits_RV), _at(targets_R, torch.int64), _at(losses)
        self.library.mypt_loss(*given, 1 / float(divisor), *logits_RV.shape, *_how(logits_RV))
        return losses

    def does_head(self, hidden_NC: Tensor, weight_VC: Tensor) -> bool:
        """Whether `head` can be called with these."""
        V, C = weight_VC.shape
        is_narrow = hidden_NC.dtype == weight_VC.dtype == torch.bfloat16
        does_fit = C % _HEAD_WIDTHS == 0 and V >= _FEWEST_TOKENS and hidden_NC.numel() <= _MOST_HIDDEN
        return is_narrow and does_fit and bool(self.library.mypt_has_pairs())

    def head(
        self, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, divisor: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, shape (N,), and the gradients of their sum / divisor: of hidden states, and of weights in fp32.

        Raises:
            IndexError: for a target that no logit is of.
        """
        (N, C), V = hidden_NC.shape, len(weight_VC)
        if targets_N.max() >= V:
            raise IndexError(f"a target of {targets_N.max()} and {V} logits")
        own = _Head(N=N, C=C, V=V, weight=1 / float(divisor), threads=torch.get_num_threads())
        losses, gradients = hidden_NC.new_empty(N, dtype=torch.float32), torch.empty_like(hidden_NC)
        weight_gradients = torch.empty_like(weight_VC, dtype=torch.float32)
        own.rows, own.weights, own.targets = _at(hidden_NC), _at(weight_VC), _at(targets_N, torch.int64)
        own.losses, own.row_gradients, own.weight_gradients = map(_at, (losses, gradients, weight_gradients))
        room = losses.new_empty(self.library.mypt_head_room(N, C, V, own.threads))
        self.library.mypt_head(ctypes.byref(own), _at(room))
        return losses, gradients, weight_gradients

    def muon_mix(self, gradients: Sequence[Tensor], momenta: Sequence[Tensor], stack_KRC: Tensor, share: float) -> None:
        """Fill a stack with what lies a share of the way from each gradient to its momentum."""
        pointers = c_void_p * len(gradients)
        given = pointers(*map(_at, gradients)), pointers(*map(_at, momenta)), _at(stack_KRC)
        self.library.mypt_muon_mix(*given, share, len(gradients), gradients[0].numel(), *_how(stack_KRC))

    def muon_move(
        self,
        weights_RC: Tensor,
        gradients_RC: Tensor,
        momentum_RC: Tensor,
        row_squares_R1: Tensor,
        directions_RC: Tensor,
        **shares: float,
    ) -> None:
        """Move a matrix and its moments: by `rate`, less what it `shrink`s to, with `momentum_share`, `row_share`."""
        own = _Move(rows=len(weights_RC), columns=weights_RC.shape[1], **shares)
        own.threads, own.kind = _how(directions_RC)
        own.weights, own.gradients, own.momentum = map(_at, (weights_RC, gradients_RC, momentum_RC))
        own.row_squares, own.directions = _at(row_squares_R1), _at(directions_RC)
        scales = torch.empty(2 * own.rows, dtype=torch.float32)
        self.library.mypt_muon_move(ctypes.byref(own), _at(scales))

    def _room(self, own: _Attention) -> Tensor:
        return torch.empty(own.threads * self.library.mypt_attention_room(own.T, own.D), dtype=torch.float32)


def _struct(inputs_BTW: Tensor, heads: Heads) -> _Attention:
    B, T, W = inputs_BTW.shape
    own = _Attention(B=B, T=T, H=heads.query_heads, G=heads.key_heads, eps=heads.eps)
    own.D = W // (own.H + 2 * own.G)
    own.threads, own.kind = _how(inputs_BTW)
    own.seed, own.dropout = heads.seed, min(heads.dropout, _MOST_DROPPED)
    own.inputs, own.documents = _at(inputs_BTW), _at(heads.documents_BT, torch.int64)
    own.query_norm, own.key_norm = (_at(norm, inputs_BTW.dtype) for norm in (heads.query_norm_D, heads.key_norm_D))
    own.cosines, own.sines = (_at(angles, torch.float32) for angles in (heads.cos_T1P, heads.sin_T1P))
    return own


def _norm_struct(x_NC: Tensor, weights: NormWeights, means_N: Tensor | None, factors_N: Tensor) -> _Norm:
    own = _Norm(rows=len(x_NC), width=x_NC.shape[1], eps=weights.eps)
    assert weights.weight_C.shape == x_NC.shape[1:]
    own.threads, own.kind = _how(x_NC)
    own.inputs, own.weights, own.biases = (_at(each, x_NC.dtype) for each in (x_NC, weights.weight_C, weights.bias_C))
    own.means, own.factors = map(_at, (means_N, factors_N))
    return own


def _at(tensor: Tensor | None, dtype: torch.dtype | None = None) -> int | None:
    """Where numbers are, which are of this type."""
    if tensor is None:
        return None
    assert tensor.is_contiguous(), "rows lie one after another"
    assert tensor.device.type == "cpu"
    assert dtype in {None, tensor.dtype}, f"{tensor.dtype} is not {dtype}"
    return tensor.data_ptr()


def _how(tensor: Tensor) -> tuple[int, int]:
    """By how many threads, and in which type."""
    return torch.get_num_threads(), KINDS[tensor.dtype]
