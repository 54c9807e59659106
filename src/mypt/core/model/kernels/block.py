"""A whole block as one function of autograd: in small steps the calls between its parts take most of the time.

Letters: as in block.h.
"""

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mypt.core.model.kernels.calls import Calls
from mypt.core.model.kernels.structs import PARTS, BlockStruct, PartsStruct, at
from mypt.core.model.layers import Block, Gelu, LayerNorm, RotaryAttention, SwiGlu

_ACTIVATIONS = {"gelu": 0, "relu": 1, "swiglu": 2}
"""Of numbers.h."""
_SIZES = 32
"""All are multiples of this."""


class Surroundings(NamedTuple):
    """What a block is given beside its inputs."""

    cos_T1P: Tensor | None = None
    sin_T1P: Tensor | None = None
    documents_BT: Tensor | None = None


class _Shape(NamedTuple):
    """What a block is beside its weights."""

    H: int
    G: int
    D: int
    I: int  # noqa: E741 - its letter
    activation: int
    eps: float
    head_eps: float
    is_centered: bool


class _Kept(NamedTuple):
    """What the way back needs."""

    means_2N: Tensor | None
    factors_2N: Tensor
    heads_NW: Tensor
    mixed_NC: Tensor
    sums_BHT: Tensor
    middle_NC: Tensor
    gates_NI: Tensor | None
    ups_NI: Tensor


class BlockCalls:
    """How a block is called."""

    def __init__(self, calls: Calls, block: Block) -> None:
        """Look at it."""
        attention, mlp, norm = block.attention, block.mlp, block.mlp_norm
        D = attention.head_width
        activation = "swiglu" if isinstance(mlp, SwiGlu) else "gelu" if isinstance(mlp.activation, Gelu) else "relu"
        self._shape = _Shape(
            attention.widths[0] // D,
            attention.widths[1] // D,
            D,
            mlp.up.out_features,
            _ACTIVATIONS[activation],
            norm.eps or 0.0,
            (attention.query_norm.eps or 0.0) if isinstance(attention, RotaryAttention) else 0.0,
            isinstance(norm, LayerNorm),
        )
        self._calls = calls
        sizes = (attention.widths[0], self._shape.I, sum(attention.widths))
        self._fits = calls.has_pairs and not block.dropout.p and not any(size % _SIZES for size in sizes)

    def fits(self, x_BTC: Tensor) -> bool:
        """Whether it can be called with these."""
        return self._fits and x_BTC.dtype == torch.bfloat16 and not x_BTC.shape[:-1].numel() % _SIZES

    def __call__(self, block: Block, x_BTC: Tensor, surroundings: Surroundings) -> Tensor:
        """What the block gives, shape (B, T, C)."""
        return _Block.apply(self._calls, self._shape, surroundings, x_BTC, *_parts_of(block))


def _parts_of(block: Block) -> list[Tensor | None]:
    """In the order of PARTS."""
    attention, mlp, norms = block.attention, block.mlp, (block.attention_norm, block.mlp_norm)
    is_rotary = isinstance(attention, RotaryAttention)
    (first, first_bias), (second, second_bias) = ((norm.weight, getattr(norm, "bias", None)) for norm in norms)
    heads, output = attention.query_key_value, attention.output
    query_norm, key_norm = (attention.query_norm.weight, attention.key_norm.weight) if is_rotary else (None, None)
    of_attention = [first, first_bias, heads.weight, heads.bias, query_norm, key_norm, output.weight, output.bias]
    gate = mlp.gate.weight if isinstance(mlp, SwiGlu) else None
    return [*of_attention, second, second_bias, gate, mlp.up.weight, mlp.up.bias, mlp.down.weight, mlp.down.bias]


def _struct(
    shape: _Shape, x_BTC: Tensor, parts: list[Tensor | None], surroundings: Surroundings, kept: _Kept
) -> BlockStruct:
    B, T, C = x_BTC.shape
    own = BlockStruct(B=B, T=T, C=C, **dict(zip("HGDI", shape, strict=False)), activation=shape.activation)
    own.weights = PartsStruct(*(at(part, torch.bfloat16) for part in parts))
    own.eps, own.head_eps, own.threads = shape.eps, shape.head_eps, torch.get_num_threads()
    own.inputs, own.documents = at(x_BTC, torch.bfloat16), at(surroundings.documents_BT, torch.int64)
    own.cosines, own.sines = (at(angles, torch.float32) for angles in surroundings[:2])
    own.means, own.factors, own.heads, own.mixed, own.sums, own.middle, own.gates, own.ups = map(at, kept)
    return own


def _forward(
    calls: Calls, shape: _Shape, surroundings: Surroundings, x_BTC: Tensor, parts: list[Tensor | None]
) -> tuple[Tensor, _Kept]:
    B, T, C = x_BTC.shape
    N = B * T
    kept = _Kept(
        x_BTC.new_empty(2, N, dtype=torch.float32) if shape.is_centered else None,
        x_BTC.new_empty(2, N, dtype=torch.float32),
        x_BTC.new_empty(N, shape.D * (shape.H + 2 * shape.G)),
        x_BTC.new_empty(N, C),
        x_BTC.new_empty(B, shape.H, T, dtype=torch.float32),
        x_BTC.new_empty(N, C),
        x_BTC.new_empty(N, shape.I) if shape.activation == _ACTIVATIONS["swiglu"] else None,
        x_BTC.new_empty(N, shape.I),
    )
    own, outputs_BTC = _struct(shape, x_BTC, parts, surroundings, kept), torch.empty_like(x_BTC)
    own.outputs = at(outputs_BTC)
    room = _room(calls, own, is_back=False)
    calls.library.mypt_block(ctypes.byref(own), at(room))
    return outputs_BTC, kept


def _room(calls: Calls, own: BlockStruct, *, is_back: bool) -> Tensor:
    return torch.empty(calls.library.mypt_block_room(ctypes.byref(own), is_back), dtype=torch.float32)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(  # pyrefly: ignore [bad-override] - torch takes any signature
        ctx: Any,  # noqa: ANN401 - torch's own
        calls: Calls,
        shape: _Shape,
        surroundings: Surroundings,
        x_BTC: Tensor,
        *parts: Tensor | None,
    ) -> Tensor:
        """Keep what takes products to be found again."""
        x_BTC = x_BTC.contiguous()
        outputs_BTC, kept = _forward(calls, shape, surroundings, x_BTC, [*parts])
        ctx.save_for_backward(x_BTC, *parts, *kept)
        ctx.calls, ctx.shape, ctx.surroundings = calls, shape, surroundings
        return outputs_BTC

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient_BTC: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Gradients of inputs and of all parts."""
        x_BTC, *rest = ctx.saved_tensors
        parts, kept = rest[: len(PARTS)], _Kept(*rest[len(PARTS) :])
        own = _struct(ctx.shape, x_BTC, parts, ctx.surroundings, kept)
        gradient_BTC, x_gradient_BTC = gradient_BTC.contiguous(), torch.empty_like(x_BTC)
        gradients = [None if part is None else torch.empty_like(part) for part in parts]
        given = (gradient_BTC, x_gradient_BTC, _room(ctx.calls, own, is_back=True))
        pointers = PartsStruct(*map(at, gradients))
        ctx.calls.library.mypt_block_back(ctypes.byref(own), ctypes.byref(pointers), *map(at, given))
        return None, None, None, x_gradient_BTC, *gradients
