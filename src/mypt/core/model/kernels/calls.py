"""The functions of the C files here, given tensors of the types they know, and the memory for what they give.

Letters: B batch, T positions, H heads of queries, G heads of keys and values, D head width, N rows, R rows at once,
C width, V vocabulary, K matrices.
"""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from mypt.core.model.kernels.structs import (
    KINDS,
    MOST_DROPPED,
    AttentionStruct,
    BlockStruct,
    Heads,
    HeadStruct,
    MoveStruct,
    NormGradientsStruct,
    NormMoments,
    NormStruct,
    NormWeights,
    PartsStruct,
    at,
    attention_struct,
    how,
    norm_struct,
)
from mypt.core.native.library import Library

ROWS_AT_ONCE, NUMBERS_AT_ONCE = 64, 4096
"""Rows whose gradients of a norm's weights are one sum, and numbers that a thread takes together: C is told both."""
_HEAD_WIDTHS, _FEWEST_TOKENS, _MOST_LITTLE = 32, 4096, 1024
"""`head` knows widths that are multiples of the first; vocabularies from the second on are cut for several threads, and
up to the third all logits of some rows stay near."""
_MOST_HIDDEN, _MOST_LOGITS = 2**21, 2**22
"""Numbers of hidden states, and of logits in a little vocabulary: what is kept of more takes too much memory."""
_TURNED_SIZES = 32
"""`turn` knows multiples of this."""
_P, _COUNT, _THREADS, _NUMBER = c_void_p, c_int64, c_int32, c_float


@dataclass(frozen=True, slots=True)
class Calls:
    """A library, and how it is called."""

    library: Library

    def __post_init__(self) -> None:
        """Tell ctypes what each function takes."""
        arguments = {
            "mypt_attention_room": (_COUNT, _COUNT),
            "mypt_attend": (POINTER(AttentionStruct), _P, _P, _P),
            "mypt_attend_back": (POINTER(AttentionStruct), _P, _P, _P, _P, _P),
            "mypt_norm": (POINTER(NormStruct), _P),
            "mypt_norm_back": (POINTER(NormStruct), POINTER(NormGradientsStruct)),
            "mypt_turn": (_P, _P, _COUNT, _COUNT, _COUNT, _THREADS),
            "mypt_gate": (_P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_gate_back": (_P, _P, _P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_gelu": (_P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_gelu_back": (_P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_drop": (_P, _P, _COUNT, c_uint64, _NUMBER, _THREADS, _COUNT),
            "mypt_loss": (_P, _P, _P, _NUMBER, _COUNT, _COUNT, _THREADS, _COUNT),
            "mypt_has_pairs": (),
            "mypt_convert": (_P, _P, _P, _COUNT, _THREADS, _COUNT),
            "mypt_clip": (_P, _P, _COUNT, c_double, _P, _P, _THREADS),
            "mypt_muon_mix": (_P, _P, _P, _NUMBER, _COUNT, _COUNT, _THREADS, _COUNT),
            "mypt_muon_move": (POINTER(MoveStruct), _P),
        }
        for name, types in arguments.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = types, None
        self.library.mypt_attention_room.restype = c_int64
        self.library.mypt_clip.restype = c_double
        self.library.mypt_has_pairs.restype = c_int32
        if self.has_pairs:
            block = POINTER(BlockStruct)
            self.library.mypt_block.argtypes, self.library.mypt_block.restype = (block, _P), None
            self.library.mypt_block_back.argtypes = (block, POINTER(PartsStruct), _P, _P, _P)
            self.library.mypt_block_back.restype = None
            self.library.mypt_block_room.argtypes, self.library.mypt_block_room.restype = (block, _COUNT), c_int64
            for head in (self.library.mypt_head, self.library.mypt_little_head):
                head.argtypes, head.restype = (POINTER(HeadStruct), _P), None
            for room in (self.library.mypt_head_room, self.library.mypt_little_head_room):
                room.argtypes, room.restype = (_COUNT,) * 4, c_int64

    @property
    def has_pairs(self) -> bool:
        """Whether there are instructions for pairs of numbers in bf16, and what is made of them."""
        return bool(self.library.mypt_has_pairs())

    def attend(self, inputs_BTW: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
        """Mixed values, shape (B, T, H x D), and the logarithms of the sums of weights, shape (B, H, T)."""
        own = attention_struct(inputs_BTW, heads)
        mixed = inputs_BTW.new_empty(own.B, own.T, own.H * own.D)
        sums = inputs_BTW.new_empty(own.B, own.H, own.T, dtype=torch.float32)
        given = (mixed, sums, self._room(own))  # memory that only the call knew would be given away before it
        self.library.mypt_attend(ctypes.byref(own), *map(at, given))
        return mixed, sums

    def attend_back(
        self, gradient_BTC: Tensor, inputs_BTW: Tensor, heads: Heads, sums_BHT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the inputs, and of both norms, shape (2, D)."""
        own = attention_struct(inputs_BTW, heads)
        gradients = torch.empty_like(inputs_BTW)
        norms = inputs_BTW.new_empty(own.B * own.G, 2, own.D, dtype=torch.float32)
        given = (gradient_BTC.contiguous(), sums_BHT, gradients, norms, self._room(own))
        self.library.mypt_attend_back(ctypes.byref(own), *map(at, given))
        return gradients, norms.sum(0)

    def norm(self, x_NC: Tensor, added_NC: Tensor | None, weights: NormWeights) -> tuple[Tensor, Tensor, NormMoments]:
        """Rows, to which others may be added, and these normed."""
        sums, normed = x_NC if added_NC is None else torch.empty_like(x_NC), torch.empty_like(x_NC)
        factors = x_NC.new_empty(len(x_NC), dtype=torch.float32)
        moments = NormMoments(torch.empty_like(factors) if weights.is_centered else None, factors)
        own = norm_struct(x_NC, weights, moments)
        own.added, own.sums = at(added_NC, x_NC.dtype), at(sums)
        self.library.mypt_norm(ctypes.byref(own), at(normed))
        return sums, normed, moments

    def norm_back(
        self,
        gradient_NC: Tensor,
        beside_NC: Tensor | None,
        sums_NC: Tensor,
        weights: NormWeights,
        moments: NormMoments,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of the rows, to which others may be added, and of weights and biases, these in fp32."""
        gradients, own = torch.empty_like(sums_NC), norm_struct(sums_NC, weights, moments)
        shares = sums_NC.new_empty(-(-len(sums_NC) // ROWS_AT_ONCE), sums_NC.shape[1], dtype=torch.float32)
        bias_shares = None if weights.bias_C is None else torch.empty_like(shares)
        beside = None if beside_NC is None else beside_NC.contiguous()
        given = (gradient_NC.contiguous(), beside, gradients, shares, bias_shares)
        self.library.mypt_norm_back(ctypes.byref(own), ctypes.byref(NormGradientsStruct(*map(at, given))))
        return gradients, shares.sum(0), None if bias_shares is None else bias_shares.sum(0)

    def does_turn(self, x_BTI: Tensor, weight_OI: Tensor) -> bool:
        """Whether `turned` can be given these, and gradients of both."""
        sizes = (x_BTI.numel() // x_BTI.shape[-1], *weight_OI.shape)
        return x_BTI.dtype == torch.bfloat16 and self.has_pairs and not any(size % _TURNED_SIZES for size in sizes)

    def turned(self, x_NC: Tensor, *, is_spread: bool = True) -> Tensor:
        """(C, N); rows that are a power of two apart share few lines of a cache, so they may be spread."""
        N, C = x_NC.shape
        apart = N + _TURNED_SIZES if is_spread else N
        turned = x_NC.new_empty(C, apart)
        given = (x_NC.contiguous(), turned)
        self.library.mypt_turn(*map(at, given), N, C, apart, torch.get_num_threads())
        return turned[:, :N]

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """SiLU of one times the other; both of one shape."""
        assert (gate.shape, gate.dtype) == (up.shape, up.dtype)
        gated = torch.empty_like(gate)
        self.library.mypt_gate(*map(at, (gate, up, gated)), gate.numel(), *how(gate))
        return gated

    def gate_back(self, gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both."""
        gradients = torch.empty_like(gate), torch.empty_like(up)
        given = (gradient.contiguous(), gate, up, *gradients)
        self.library.mypt_gate_back(*map(at, given), gate.numel(), *how(gate))
        return gradients

    def gelu(self, x: Tensor) -> Tensor:
        """GELU in its tanh form."""
        outputs = torch.empty_like(x)
        self.library.mypt_gelu(at(x), at(outputs), x.numel(), *how(x))
        return outputs

    def gelu_back(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Gradients of the inputs."""
        gradients = torch.empty_like(x)
        self.library.mypt_gelu_back(*map(at, (gradient.contiguous(), x, gradients)), x.numel(), *how(x))
        return gradients

    def drop(self, x: Tensor, dropout: float, seed: int) -> Tensor:
        """Zero for a share of numbers, the same ones for a seed."""
        outputs = torch.empty_like(x)
        self.library.mypt_drop(at(x), at(outputs), x.numel(), seed, min(dropout, MOST_DROPPED), *how(x))
        return outputs

    def loss(self, logits_RV: Tensor, targets_R: Tensor, divisor: Tensor) -> Tensor:
        """What `logits_to_gradient` does.

        Raises:
            IndexError: for a target that no logit is of.
        """
        if targets_R.max() >= logits_RV.shape[1]:
            raise IndexError(f"a target of {targets_R.max()} and {logits_RV.shape[1]} logits")
        losses = logits_RV.new_empty(len(logits_RV), dtype=torch.float32)
        given = at(logits_RV), at(targets_R, torch.int64), at(losses)
        self.library.mypt_loss(*given, 1 / float(divisor), *logits_RV.shape, *how(logits_RV))
        return losses

    def does_head(self, hidden_NC: Tensor, weight_VC: Tensor) -> bool:
        """Whether `head` can be called with these."""
        (V, C), N = weight_VC.shape, len(hidden_NC)
        is_narrow = hidden_NC.dtype == weight_VC.dtype == torch.bfloat16
        is_large = V >= _FEWEST_TOKENS and hidden_NC.numel() <= _MOST_HIDDEN
        return is_narrow and not C % _HEAD_WIDTHS and (is_large or _is_little(N, V)) and self.has_pairs

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
        own = HeadStruct(N=N, C=C, V=V, weight=1 / float(divisor), threads=torch.get_num_threads())
        losses, gradients = hidden_NC.new_empty(N, dtype=torch.float32), torch.empty_like(hidden_NC)
        weight_gradients = torch.empty_like(weight_VC, dtype=torch.float32)
        own.rows, own.weights, own.targets = at(hidden_NC), at(weight_VC), at(targets_N, torch.int64)
        own.losses, own.row_gradients, own.weight_gradients = map(at, (losses, gradients, weight_gradients))
        name = "mypt_little_head" if _is_little(N, V) else "mypt_head"
        room = losses.new_empty(getattr(self.library, f"{name}_room")(N, C, V, own.threads))
        getattr(self.library, name)(ctypes.byref(own), at(room))
        return losses, gradients, weight_gradients

    def convert(self, to: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
        """Copy numbers in bf16 to those in fp32, or the other way."""
        assert {to[0].dtype, numbers[0].dtype} == KINDS.keys()
        given = _pointers(to, to[0].dtype), _pointers(numbers, numbers[0].dtype)
        counts = (c_int64 * len(to))(*(each.numel() for each in to))
        self.library.mypt_convert(*given, counts, len(to), *how(to[0]))

    def clip(self, gradients: Sequence[Tensor], most: float) -> float:
        """Make gradients shorter whose norm is above `most`, and give the norm they had."""
        counts = [gradient.numel() for gradient in gradients]
        starts = [0, *accumulate(-(-count // NUMBERS_AT_ONCE) for count in counts)]
        sums = torch.empty(starts[-1], dtype=torch.float32)
        numbers = (c_int64 * len(counts))(*counts), (c_int64 * len(starts))(*starts)
        pointers = _pointers(gradients, torch.float32)
        given = (pointers, numbers[0], len(counts), most, at(sums), numbers[1], torch.get_num_threads())
        return self.library.mypt_clip(*given)

    def muon_mix(self, gradients: Sequence[Tensor], momenta: Sequence[Tensor], stack_KRC: Tensor, share: float) -> None:
        """Fill a stack with what lies a share of the way from each gradient to its momentum."""
        given = _pointers(gradients), _pointers(momenta), at(stack_KRC)
        self.library.mypt_muon_mix(*given, share, len(gradients), gradients[0].numel(), *how(stack_KRC))

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
        own = MoveStruct(rows=len(weights_RC), columns=weights_RC.shape[1], **shares)
        own.threads, own.kind = how(directions_RC)
        own.weights, own.gradients, own.momentum = map(at, (weights_RC, gradients_RC, momentum_RC))
        own.row_squares, own.directions = at(row_squares_R1), at(directions_RC)
        scales = torch.empty(2 * own.rows, dtype=torch.float32)
        self.library.mypt_muon_move(ctypes.byref(own), at(scales))

    def _room(self, own: AttentionStruct) -> Tensor:
        return torch.empty(own.threads * self.library.mypt_attention_room(own.T, own.D), dtype=torch.float32)


def _is_little(N: int, V: int) -> bool:
    return V <= _MOST_LITTLE and N * V <= _MOST_LOGITS and not N % _HEAD_WIDTHS


def _pointers(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*(at(tensor, dtype) for tensor in tensors))
