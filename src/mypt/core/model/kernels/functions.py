"""The kernels as functions of autograd: each keeps what its way back needs, and no more.

Letters: B batch, T positions, N both of them, C width, I and O widths of inputs and outputs, D head width, W queries,
keys and values side by side.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.model.attention import Documents
from mypt.core.model.kernels.block import BlockCalls, Surroundings
from mypt.core.model.kernels.calls import Calls
from mypt.core.model.kernels.structs import Heads, NormMoments, NormWeights
from mypt.core.model.layers import Attention, Block, LayerNorm, RmsNorm, RotaryAttention
from mypt.core.model.loss import HeadGradients, head_loss
from mypt.core.model.rotary import Rotation

_SEEDS = 2**62


class Kernels:
    """What a model's layers call instead of what is written there. Copies of a model share it."""

    def __init__(self, calls: Calls, *, fewest_numbers: int = 2**18, most_in_block: int = 2**19) -> None:
        """Use a library.

        Args:
            calls: the library.
            fewest_numbers: with fewer, a call from Python takes longer than it saves where torch has a function for it.
            most_in_block: with more, torch's products save more than one call for a whole block.
        """
        self.calls = calls
        self._fewest_numbers, self._most_in_block = fewest_numbers, most_in_block
        self._blocks = WeakKeyDictionary[Block, BlockCalls]()

    def __deepcopy__(self, _memo: object) -> "Kernels":
        """Nothing in it changes."""
        return self

    def attend(
        self, layer: Attention, inputs_BTW: Tensor, documents: Documents | None, rotation: Rotation | None
    ) -> Tensor:
        """All that a layer does between its two products, shape (B, T, C)."""
        query_norm = key_norm = None
        eps = 0.0
        if isinstance(layer, RotaryAttention):
            query_norm, key_norm, eps = layer.query_norm.weight, layer.key_norm.weight, layer.query_norm.eps
        dropout = layer.dropout
        heads = Heads(
            layer.widths[0] // layer.head_width,
            layer.widths[1] // layer.head_width,
            eps=eps or 0.0,
            cos_T1P=None if rotation is None else rotation.cos_T1P,
            sin_T1P=None if rotation is None else rotation.sin_T1P,
            documents_BT=None if documents is None else documents.of_BT,
            dropout=dropout,
            seed=_seed() if dropout else 0,
        )
        return _Attend.apply(self.calls, inputs_BTW, query_norm, key_norm, heads)

    def do_block(self, block: Block, x_BTC: Tensor) -> bool:
        """Whether all of a block is to be one call."""
        return x_BTC.numel() < self._most_in_block and self._called(block).fits(x_BTC)

    def block(self, block: Block, x_BTC: Tensor, documents: Documents | None, rotation: Rotation | None) -> Tensor:
        """All of a block."""
        angles = (None, None) if rotation is None else (rotation.cos_T1P, rotation.sin_T1P)
        surroundings = Surroundings(*angles, None if documents is None else documents.of_BT)
        return self._called(block)(block, x_BTC, surroundings)

    def do_norm(self, layer: LayerNorm | RmsNorm, x_BTC: Tensor) -> bool:
        """Whether `norm` is faster than torch, which has one function for a LayerNorm, and several for an RMSNorm."""
        return isinstance(layer, RmsNorm) or self._pay(x_BTC)

    def norm(self, layer: LayerNorm | RmsNorm, x_BTC: Tensor, added_BTC: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sum of both, and that normed."""
        bias_C = layer.bias if isinstance(layer, LayerNorm) else None
        is_centered = isinstance(layer, LayerNorm)
        return _Norm.apply(self.calls, x_BTC, added_BTC, layer.weight, bias_C, layer.eps, is_centered)

    def do_linear(self, x_BTI: Tensor, weight_OI: Tensor) -> bool:
        """Whether the gradient of these weights comes faster by `linear`."""
        return self._pay(x_BTI) and self.calls.does_turn(x_BTI, weight_OI)

    def linear(self, x_BTI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """A linear layer."""
        return _Linear.apply(self.calls, x_BTI, weight_OI, bias_O)

    def gate(self, gate_BTI: Tensor, up_BTI: Tensor) -> Tensor:
        """SwiGLU's gate."""
        return _Gate.apply(self.calls, gate_BTI, up_BTI)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU."""
        return _Gelu.apply(self.calls, x)

    def drop(self, x: Tensor, dropout: float) -> Tensor:
        """Dropout."""
        return _Drop.apply(self.calls, x, dropout, _seed())

    def head_loss(
        self, hidden_NC: Tensor, weight_VC: Tensor, bias_V: Tensor | None, targets_N: Tensor, divisor: Tensor
    ) -> HeadGradients:
        """As the function of this name in loss.py."""
        if bias_V is None and self.calls.does_head(hidden_NC, weight_VC):
            losses_N, hidden_gradient_NC, weight_gradient_VC = self.calls.head(hidden_NC, weight_VC, targets_N, divisor)
            return HeadGradients(losses_N.sum(), hidden_gradient_NC, weight_gradient_VC, None)
        return head_loss(hidden_NC, weight_VC, bias_V, targets_N, divisor, self.calls.loss)

    def _called(self, block: Block) -> BlockCalls:
        if block not in self._blocks:
            self._blocks[block] = BlockCalls(self.calls, block)
        return self._blocks[block]

    def _pay(self, x: Tensor) -> bool:
        return x.numel() >= self._fewest_numbers


def _seed() -> int:
    """From torch's generator, as torch's own dropout: a function of the step."""
    return int(torch.randint(_SEEDS, ()))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(  # pyrefly: ignore [bad-override] - torch takes any signature
        ctx: Any,  # noqa: ANN401 - torch's own
        calls: Calls,
        inputs_BTW: Tensor,
        query_norm_D: Tensor | None,
        key_norm_D: Tensor | None,
        heads: Heads,
    ) -> Tensor:
        """Mix values; keep the inputs, and one number for each query."""
        mixed_BTC, sums_BHT = calls.attend(inputs_BTW, heads._replace(query_norm_D=query_norm_D, key_norm_D=key_norm_D))
        ctx.save_for_backward(inputs_BTW, query_norm_D, key_norm_D, sums_BHT)
        ctx.calls, ctx.heads = calls, heads
        return mixed_BTC

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient_BTC: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Compute weights again, and from them all gradients."""
        inputs_BTW, query_norm_D, key_norm_D, sums_BHT = ctx.saved_tensors
        heads = ctx.heads._replace(query_norm_D=query_norm_D, key_norm_D=key_norm_D)
        inputs_gradient, norms_2D = ctx.calls.attend_back(gradient_BTC, inputs_BTW, heads, sums_BHT)
        if query_norm_D is None:
            return None, inputs_gradient, None, None, None
        return None, inputs_gradient, *norms_2D.to(query_norm_D.dtype), None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(  # pyrefly: ignore [bad-override] - torch takes any signature
        ctx: Any,  # noqa: ANN401 - torch's own
        calls: Calls,
        x_BTC: Tensor,
        added_BTC: Tensor | None,
        weight_C: Tensor,
        bias_C: Tensor | None,
        eps: float,
        is_centered: bool,  # noqa: FBT001 - torch knows places alone
    ) -> tuple[Tensor, Tensor]:
        """Add and norm rows; keep the sums."""
        x_NC = x_BTC.reshape(-1, x_BTC.shape[-1])
        added_NC = None if added_BTC is None else added_BTC.reshape(x_NC.shape)
        sums_NC, normed_NC, moments = calls.norm(x_NC, added_NC, NormWeights(weight_C, bias_C, eps, is_centered))
        ctx.save_for_backward(sums_NC, weight_C, bias_C, *moments)
        ctx.calls, ctx.how, ctx.has_added = calls, (eps, is_centered), added_BTC is not None
        ctx.set_materialize_grads(False)  # nobody may want the sums
        return sums_NC.view(x_BTC.shape), normed_NC.view(x_BTC.shape)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, beside_BTC: Tensor | None, gradient_BTC: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of rows, weights and biases; both that are added have the same."""
        sums_NC, weight_C, bias_C, *moments = ctx.saved_tensors
        weights = NormWeights(weight_C, bias_C, *ctx.how)
        beside_NC = None if beside_BTC is None else beside_BTC.reshape(sums_NC.shape)
        gradient_NC = gradient_BTC.reshape(sums_NC.shape)
        gradient_NC, *of_weights = ctx.calls.norm_back(gradient_NC, beside_NC, sums_NC, weights, NormMoments(*moments))
        gradient_BTC = gradient_NC.view(gradient_BTC.shape)
        of_weights = (None if each is None else each.to(weight_C.dtype) for each in of_weights)
        return None, gradient_BTC, gradient_BTC if ctx.has_added else None, *of_weights, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    # pyrefly: ignore [bad-override] - torch takes any signature
    def forward(ctx: Any, calls: Calls, x_BTI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:  # noqa: ANN401
        """By torch; keep inputs and weights."""
        ctx.save_for_backward(x_BTI, weight_OI)
        ctx.calls, ctx.has_bias = calls, bias_O is not None
        return F.linear(x_BTI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient_BTO: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Gradients of inputs, weights and biases.

        torch's product of a matrix in bf16 that it has to turn over takes half as long again as one of a turned one.
        """
        x_BTI, weight_OI = ctx.saved_tensors
        gradient_NO, x_NI = gradient_BTO.flatten(0, -2), x_BTI.flatten(0, -2)
        turned = ctx.calls.turned
        if len(weight_OI) > weight_OI.shape[1]:  # the narrower matrix is turned over
            weight_gradient = turned(turned(x_NI) @ gradient_NO, is_spread=False)
        else:
            weight_gradient = turned(gradient_NO) @ x_NI
        bias_gradient = gradient_NO.sum(0) if ctx.has_bias else None
        return None, (gradient_NO @ weight_OI).view(x_BTI.shape), weight_gradient, bias_gradient


class _Gate(torch.autograd.Function):
    @staticmethod
    # pyrefly: ignore [bad-override] - torch takes any signature
    def forward(ctx: Any, calls: Calls, gate: Tensor, up: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        """Multiply; keep both."""
        ctx.save_for_backward(gate, up)
        ctx.calls = calls
        return calls.gate(gate, up)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Gradients of both."""
        return None, *ctx.calls.gate_back(gradient, *ctx.saved_tensors)


class _Gelu(torch.autograd.Function):
    @staticmethod
    # pyrefly: ignore [bad-override] - torch takes any signature
    def forward(ctx: Any, calls: Calls, x: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        """Keep the inputs."""
        ctx.save_for_backward(x)
        ctx.calls = calls
        return calls.gelu(x)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Gradients of the inputs."""
        return None, ctx.calls.gelu_back(gradient, *ctx.saved_tensors)


class _Drop(torch.autograd.Function):
    @staticmethod
    # pyrefly: ignore [bad-override] - torch takes any signature
    def forward(ctx: Any, calls: Calls, x: Tensor, dropout: float, seed: int) -> Tensor:  # noqa: ANN401 - torch's own
        """Keep a number, and find again by it what was dropped."""
        ctx.calls, ctx.how = calls, (dropout, seed)
        return calls.drop(x.contiguous(), dropout, seed)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Gradients of what was not dropped."""
        return None, ctx.calls.drop(gradient.contiguous(), *ctx.how), None, None
