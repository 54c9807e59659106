"""The GPT: token ids in, logits out.

One module serves all families (records/model.py says what each fixes): embeddings, then blocks of
x + attention(norm(x)) and x + mlp(norm(x)), a final norm and the output head.

Letters: B batch, T time, C width, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils.checkpoint import checkpoint

from mypt.core.model.attention import Mask, MaskMaker, attention_mask
from mypt.core.model.cache import CacheRows
from mypt.core.model.initial import initialize
from mypt.core.model.int8 import Int8Embedding, Int8Linear
from mypt.core.model.layers import Block, Dropout, build_norm
from mypt.core.model.loss import Head, HeadLoss, TokenScores, head_loss, mean_loss, token_scores
from mypt.core.model.rotary import Rotation, rotation_at
from mypt.errors import UsageError
from mypt.records.model import ModelConfig


class GPT(nn.Module):
    """A language model: the probability of the next token given those before it."""

    checkpoint_activations = False
    """While training, keep each block's input alone, and compute the rest anew in the backward pass."""
    head_loss: HeadLoss = staticmethod(head_loss)
    """The loss, and its gradients down to the hidden states: other code, where that is faster."""
    training_mask: MaskMaker = staticmethod(attention_mask)
    """The mask while training, as the blocks want it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        traits = config.traits
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = None if traits.rotary else nn.Embedding(config.block_size, config.n_embd)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.final_norm = build_norm(config)
        self.head = None if traits.tied_head else nn.Linear(config.n_embd, config.vocab_size, bias=traits.always_biased)
        initialize(self, config)

    def forward(self, ids_BT: Tensor, cache: CacheRows | None = None, documents_BT: Tensor | None = None) -> Tensor:
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

    def hidden(self, ids_BT: Tensor, cache: CacheRows | None = None, documents_BT: Tensor | None = None) -> Tensor:
        """The normed residual stream after the last block, shape (B, T, C).

        Raises:
            UsageError: for more positions than block_size.
        """
        past = 0 if cache is None else cache.longest
        T = ids_BT.shape[1]
        if past + T > self.config.block_size:
            raise UsageError(f"{past + T} positions do not fit the window of {self.config.block_size}")
        positions_T = torch.arange(T, device=ids_BT.device) if cache is None else cache.next_positions(T)
        x_BTC, rotation = self._embedded(ids_BT, positions_T)
        mask = (self.training_mask if self.training else attention_mask)(ids_BT, documents_BT)
        for block in self.blocks:
            x_BTC = self._through(block, x_BTC, cache, mask, rotation)
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x_BTC)

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """The output head, shape (B, T, V)."""
        return self._to_logits()(hidden_BTC)

    def scores(
        self, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None = None, passed_over: int = 0
    ) -> TokenScores:
        """Loss of every position, and whether its target is the likeliest token; shapes (B x T,), no gradients.

        Args:
            ids_BT: token ids.
            targets_BT: the next ones, negative where nothing is to be predicted.
            documents_BT: as in `forward`.
            passed_over: so many first positions are seen and not scored; T is less by so many in what is given back.
        """
        hidden_BTC = self.hidden(ids_BT, documents_BT=documents_BT)[:, passed_over:]
        hidden_NC, targets_N = hidden_BTC.flatten(0, 1), targets_BT[:, passed_over:].flatten()
        return token_scores(hidden_NC, self._to_logits(), self.config.vocab_size, targets_N)

    def loss(
        self,
        ids_BT: Tensor,
        targets_BT: Tensor,
        documents_BT: Tensor | None = None,
        predicted: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy in nats per token that is to be predicted, a scalar in fp32.

        Args:
            ids_BT: token ids.
            targets_BT: the next ones, negative where nothing is to be predicted.
            documents_BT: as in `forward`.
            predicted: how many are to be predicted in the whole batch, where this is a piece of one.
            scale: by what the gradients, not the loss, are multiplied, for types that hold no small numbers.
        """
        if predicted is None:
            predicted = (targets_BT >= 0).sum().clamp(min=1)
        hidden_NC, targets_N = self.hidden(ids_BT, documents_BT=documents_BT).flatten(0, 1), targets_BT.flatten()
        return mean_loss(hidden_NC, *self._head(), targets_N, predicted, scale, self.head_loss)

    def _through(
        self,
        block: nn.Module,
        x_BTC: Tensor,
        cache: CacheRows | None,
        mask: Mask,
        rotation: Rotation | None,
    ) -> Tensor:
        """One block; where activations are checkpointed (Chen et al., 2016), it is passed again for its gradients."""
        if not (self.checkpoint_activations and self.training):
            return block(x_BTC, cache, mask, rotation)
        # The second pass drops what the first one dropped, and so gives the same bits.
        drops = self.config.dropout > 0
        return checkpoint(block, x_BTC, cache, mask, rotation, use_reentrant=False, preserve_rng_state=drops)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in from the embeddings on; these may be more precise."""
        return self.final_norm.weight.dtype

    def _to_logits(self) -> Head:
        """The output head as one function."""
        if self.head is None and isinstance(self.token_embedding, Int8Embedding):
            return self.token_embedding.product
        if isinstance(self.head, Int8Linear):
            return self.head
        weight_VC, bias_V = self._head()
        narrow_VC = weight_VC.to(self.dtype)
        return lambda hidden_BTC: F.linear(hidden_BTC, narrow_VC, bias_V)

    def _head(self) -> tuple[Tensor, Tensor | None]:
        """Weight (V, C) and bias (V,) of the output head; a tied one may be more precise than what is computed."""
        assert not isinstance(self.token_embedding, Int8Embedding), "weights in 8 bits are not trained"
        if self.head is None:
            return self.token_embedding.weight, None
        return self.head.weight, self.head.bias

    def _embedded(self, ids_BT: Tensor, positions_T: Tensor) -> tuple[Tensor, Rotation | None]:
        """The tokens as vectors, and what tells the blocks their positions where the vectors do not."""
        x_BTC = self.token_embedding(ids_BT)
        rotation = None
        if self.position_embedding is None:
            rotation = rotation_at(positions_T, self.config.head_width, self.config.rope_base)
        else:
            x_BTC = x_BTC + self.position_embedding(positions_T)
        return self.dropout(x_BTC.to(self.dtype)), rotation
