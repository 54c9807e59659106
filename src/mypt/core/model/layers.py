"""What a block is made of: norms, attention, and the position-wise network, as the family has them.

Letters: B batch, T time, C width, H heads, D head width.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.model.attention import Documents, Mask, attend, attend_cached, repeated
from mypt.core.model.cache import CacheRows
from mypt.core.model.linear import FusedLinear, Linear
from mypt.core.model.rotary import Rotation
from mypt.records.model import ModelConfig

if TYPE_CHECKING:  # they look at these layers themselves
    from mypt.core.model.kernels.functions import Kernels

_RMS_EPS = 1e-6


class LayerNorm(nn.LayerNorm):
    """LayerNorm (Ba et al., 2016)."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Norm the last dimension."""
        if self.kernels is not None and self.training and self.kernels.do_norm(self, input):
            return self.kernels.norm(self, input, None)[1]
        return super().forward(input)


class RmsNorm(nn.RMSNorm):
    """RMSNorm (Zhang and Sennrich, 2019)."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Norm the last dimension."""
        if self.kernels is not None and self.training and self.kernels.do_norm(self, x):
            return self.kernels.norm(self, x, None)[1]
        return super().forward(x)


def norm_beside(norm: LayerNorm | RmsNorm, x_BTC: Tensor, added_BTC: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The sum of both, and that normed: a block goes on with both."""
    if norm.kernels is not None and norm.training and norm.kernels.do_norm(norm, x_BTC):
        return norm.kernels.norm(norm, x_BTC, added_BTC)
    x_BTC = x_BTC if added_BTC is None else x_BTC + added_BTC
    return x_BTC, norm(x_BTC)


class Gelu(nn.GELU):
    """GELU in its tanh form, which is GPT-2's; exported models are read so."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def __init__(self) -> None:
        super().__init__(approximate="tanh")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Activate."""
        if self.kernels is not None and self.training:
            return self.kernels.gelu(input)
        return super().forward(input)


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., 2014)."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Drop, while training."""
        if self.kernels is not None and self.training and self.p:
            return self.kernels.drop(input, self.p)
        return super().forward(input)


def build_norm(config: ModelConfig) -> LayerNorm | RmsNorm:
    """LayerNorm or RMSNorm, as the family has it."""
    if config.traits.norm == "rms":
        return RmsNorm(config.n_embd, eps=_RMS_EPS)
    return LayerNorm(config.n_embd, bias=config.projection_bias)


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al., 2017) with one fused projection."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_width = config.head_width
        self.widths = config.query_key_value_widths
        self.queries_per_key = config.n_head // config.kv_heads
        self.dropout = config.dropout
        self.query_key_value = FusedLinear(config.n_embd, self.widths, bias=config.bias)
        self.output = Linear(config.n_embd, config.n_embd, bias=config.projection_bias)

    def forward(
        self,
        x_BTC: Tensor,
        cache: CacheRows | None = None,
        mask: Mask = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Mix earlier positions into each position; only those the mask allows, where there is one."""
        B, T, C = x_BTC.shape
        if self.kernels is not None and self.training:
            assert cache is None
            assert mask is None or isinstance(mask, Documents)
            return self.output(self.kernels.attend(self, self.query_key_value(x_BTC), mask, rotation))
        query, key, value = (part.transpose(1, 2) for part in self.heads(x_BTC, rotation))  # BHTD
        if cache is not None:
            mixed_BHTD = attend_cached(query, key, value, cache, self.layer)
        else:
            key, value = repeated(self.queries_per_key, key, value)
            mixed_BHTD = attend(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.output(mixed_BHTD.transpose(1, 2).reshape(B, T, C))

    def heads(self, x_BTC: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each of shape (B, T, H, D); keys and values may have fewer heads."""
        assert rotation is None, "positions are in the residual stream already"
        B, T, _ = x_BTC.shape
        query, key, value = (
            part.view(B, T, -1, self.head_width) for part in self.query_key_value(x_BTC).split(self.widths, dim=2)
        )
        return query, key, value


class RotaryAttention(Attention):
    """Attention whose queries and keys are normed head by head, and then turned to their positions.

    The cache holds turned keys: a key's angle never changes while it is there.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.query_norm = nn.RMSNorm(config.head_width, eps=_RMS_EPS)
        self.key_norm = nn.RMSNorm(config.head_width, eps=_RMS_EPS)

    def heads(self, x_BTC: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys know their positions; values do not."""
        assert rotation is not None, "nothing else tells positions"
        query, key, value = super().heads(x_BTC, None)
        query, key = (
            # Turned in fp32, the type of the angles.
            rotation.turn(norm(part)).to(part.dtype)
            for norm, part in ((self.query_norm, query), (self.key_norm, key))
        )
        return query, key, value


class Mlp(nn.Module):
    """The position-wise network, four times as wide inside."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.n_embd, config.inner_width, bias=config.projection_bias)
        self.activation = nn.ReLU() if config.traits.activation == "relu" else Gelu()
        self.down = Linear(config.inner_width, config.n_embd, bias=config.projection_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Transform each position on its own."""
        return self.down(self.activation(self.up(x_BTC)))


class SwiGlu(nn.Module):
    """The position-wise network with a gate beside it (Shazeer, 2020)."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.n_embd, config.inner_width, bias=False)
        self.up = Linear(config.n_embd, config.inner_width, bias=False)
        self.down = Linear(config.inner_width, config.n_embd, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Transform each position on its own."""
        gate_BTI, up_BTI = self.gate(x_BTC), self.up(x_BTC)
        if self.kernels is not None and self.training:
            return self.down(self.kernels.gate(gate_BTI, up_BTI))
        return self.down(F.silu(gate_BTI) * up_BTI)


class Block(nn.Module):
    """One pre-norm transformer block."""

    kernels: "Kernels | None" = None
    """As in `Linear`."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = build_norm(config)
        self.attention = (RotaryAttention if config.traits.rotary else Attention)(config, layer)
        self.mlp_norm = build_norm(config)
        self.mlp = (SwiGlu if config.traits.activation == "swiglu" else Mlp)(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x_BTC: Tensor,
        cache: CacheRows | None = None,
        mask: Mask = None,
        rotation: Rotation | None = None,
    ) -> Tensor:
        """Add what attention and MLP have to say."""
        if self.kernels is not None and self.training and self.kernels.do_block(self, x_BTC):
            assert cache is None
            assert mask is None or isinstance(mask, Documents)
            return self.kernels.block(self, x_BTC, mask, rotation)
        x_BTC, normed_BTC = norm_beside(self.attention_norm, x_BTC)
        mixed_BTC = self._dropped(self.attention(normed_BTC, cache, mask, rotation))
        x_BTC, normed_BTC = norm_beside(self.mlp_norm, x_BTC, mixed_BTC)
        return x_BTC + self._dropped(self.mlp(normed_BTC))

    def _dropped(self, x_BTC: Tensor) -> Tensor:
        return self.dropout(x_BTC) if self.training else x_BTC  # a module that does nothing takes its time
