"""The GPT: token ids in, logits out.

One module serves all families (records/model.py says what each fixes): embeddings, then blocks of
x + attention(norm(x)) and x + mlp(norm(x)), a final norm and the output head.

Letters: B batch, T time, C width, H heads, D head width, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.model.attention import attend, document_mask, offset_causal_mask
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.linear import FusedLinear
from mypt.errors import UsageError
from mypt.records.model import ModelConfig

_INIT_STD = 0.02


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al., 2017) with one fused projection."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.query_key_value = FusedLinear(config.n_embd, (config.n_embd,) * 3, bias=config.bias)
        self.output = nn.Linear(config.n_embd, config.n_embd, bias=config.projection_bias)

    def forward(self, x_BTC: Tensor, cache: KeyValueCache | None = None, mask_B1TT: Tensor | None = None) -> Tensor:
        """Mix earlier positions into each position; only those the mask allows, where there is one."""
        B, T, C = x_BTC.shape
        query, key, value = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # BHTD
            for part in self.query_key_value(x_BTC).split(C, dim=2)
        )
        if cache is not None:
            if cache.length and T > 1:
                mask_B1TT = offset_causal_mask(cache.length, T, x_BTC.device)
            key, value = cache.extend(self.layer, key, value)
        mixed_BHTD = attend(query, key, value, mask_B1TT, self.dropout if self.training else 0.0)
        return self.output(mixed_BHTD.transpose(1, 2).reshape(B, T, C))


class Mlp(nn.Module):
    """The position-wise network, four times as wide inside."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.projection_bias)
        # GPT-2's GELU is the tanh form; exported models are read so.
        self.activation = nn.ReLU() if config.traits.activation == "relu" else nn.GELU(approximate="tanh")
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.projection_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Transform each position on its own."""
        return self.down(self.activation(self.up(x_BTC)))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.n_embd, bias=config.projection_bias)
        self.attention = Attention(config, layer)
        self.mlp_norm = nn.LayerNorm(config.n_embd, bias=config.projection_bias)
        self.mlp = Mlp(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor, cache: KeyValueCache | None = None, mask_B1TT: Tensor | None = None) -> Tensor:
        """Add what attention and MLP have to say."""
        x_BTC = x_BTC + self.dropout(self.attention(self.attention_norm(x_BTC), cache, mask_B1TT))
        return x_BTC + self.dropout(self.mlp(self.mlp_norm(x_BTC)))


class GPT(nn.Module):
    """A language model: the probability of the next token given those before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.final_norm = nn.LayerNorm(config.n_embd, bias=config.projection_bias)
        self.head = None if config.traits.tied_head else nn.Linear(config.n_embd, config.vocab_size)
        self._initialize()

    def forward(self, ids_BT: Tensor, cache: KeyValueCache | None = None, documents_BT: Tensor | None = None) -> Tensor:
        """Logits of the next token at every position.

        Args:
            ids_BT: token ids; at most block_size positions, the cached ones counted.
            cache: earlier positions, extended by these; None while training.
            documents_BT: the document of each position, as any number; positions of different
                documents do not see each other. None: all are one. Not together with a cache.

        Returns:
            Logits of shape (B, T, V).
        """
        return self.logits(self.hidden(ids_BT, cache, documents_BT))

    def hidden(self, ids_BT: Tensor, cache: KeyValueCache | None = None, documents_BT: Tensor | None = None) -> Tensor:
        """The normed residual stream after the last block, shape (B, T, C).

        Raises:
            UsageError: for more positions than block_size.
        """
        past = 0 if cache is None else cache.length
        T = ids_BT.shape[1]
        if past + T > self.config.block_size:
            raise UsageError(f"{past + T} positions do not fit the window of {self.config.block_size}")
        positions_T = torch.arange(past, past + T, device=ids_BT.device)
        x_BTC = self.dropout(self.token_embedding(ids_BT) + self.position_embedding(positions_T))
        mask_B1TT = None if documents_BT is None else document_mask(documents_BT)
        for block in self.blocks:
            x_BTC = block(x_BTC, cache, mask_B1TT)
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x_BTC)

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """The output head, shape (B, T, V)."""
        if self.head is not None:
            return self.head(hidden_BTC)
        return F.linear(hidden_BTC, self.token_embedding.weight)

    def losses(self, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats of every position, 0 where the target is negative; shape (B x T,), in fp32."""
        logits_BTV = self(ids_BT, documents_BT=documents_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="none")

    def loss(self, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats per token that is to be predicted, a scalar in fp32."""
        losses = self.losses(ids_BT, targets_BT, documents_BT)
        if documents_BT is None:
            return losses.mean()
        return losses.sum() / (targets_BT >= 0).sum().clamp(min=1)

    def _initialize(self) -> None:
        """GPT-2's initialization: normal 0.02, smaller where branches join the residual stream."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, Block), "blocks hold nothing else"
            for joining in (block.attention.output, block.mlp.down):
                nn.init.normal_(joining.weight, std=_INIT_STD / math.sqrt(2 * self.config.n_layer))
