"""What a model costs: bytes for training and generation, FLOPs, tokens. Closed form, no torch.

Letters: B batch, T context, C width, H heads, V vocabulary, L layers.
"""

from typing import NamedTuple

from mypt.records.model import ModelConfig

TOKENS_PER_PARAMETER = 20
"""Compute-optimal training tokens per parameter (Hoffmann et al., 2022, "Chinchilla")."""

PROCESS_BYTES = 320 * 2**20
"""Python with torch, before any tensor: measured resident size of a CPU process."""

_FP32 = 4
_BYTES = {"fp32": 4, "bf16": 2}


class TrainingMemory(NamedTuple):
    """Bytes alive at the peak of one training step."""

    process: int
    weights: int
    optimizer: int
    gradients: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(self)


class GenerationMemory(NamedTuple):
    """Bytes alive while text is generated."""

    process: int
    weights: int
    kv_cache: int
    logits: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(self)


def training_memory(model: ModelConfig, batch_size: int, precision: str = "fp32") -> TrainingMemory:
    """Estimate the peak of one AdamW step with fp32 weights.

    Args:
        model: the architecture.
        batch_size: sequences of block_size tokens per step.
        precision: 'fp32', or 'bf16' for autocast (activations in two bytes).
    """
    tokens = batch_size * model.block_size
    return TrainingMemory(
        process=PROCESS_BYTES,
        weights=model.parameters * _FP32,
        optimizer=2 * model.parameters * _FP32,
        gradients=model.parameters * _FP32,
        activations=activation_bytes(model, batch_size, precision),
        # The loss keeps log-probabilities and forms their gradient: both in fp32.
        logits=2 * tokens * model.vocab_size * _FP32,
    )


def activation_bytes(model: ModelConfig, batch_size: int, precision: str = "fp32") -> int:
    """Bytes of the tensors one forward pass keeps for the backward pass, logits aside.

    Per token and block, in widths C: both norms' inputs and outputs (4), q k v (3), attention
    output (1), MLP before and after the activation (8); after the blocks one more norm (2).
    """
    tokens = batch_size * model.block_size
    size = _BYTES[precision]
    per_block = tokens * model.n_embd * 16 * size
    if model.dropout:
        # Masks of one byte, and attention's probabilities, dropped and not, with their mask.
        per_block += tokens * model.n_embd * 2
        per_block += batch_size * model.n_head * model.block_size**2 * (2 * size + 1)
    return model.n_layer * per_block + tokens * model.n_embd * 2 * size


def generation_memory(model: ModelConfig, batch_size: int = 1) -> GenerationMemory:
    """Estimate the peak while generating in fp32 with a full key-value cache."""
    return GenerationMemory(
        process=PROCESS_BYTES,
        weights=model.parameters * _FP32,
        kv_cache=kv_cache_bytes(model, batch_size),
        logits=3 * batch_size * model.vocab_size * _FP32,
    )


def kv_cache_bytes(model: ModelConfig, batch_size: int = 1) -> int:
    """Bytes of the full key-value cache: 2 x L x B x T x C."""
    return 2 * model.n_layer * batch_size * model.block_size * model.n_embd * _FP32


def training_flops_per_token(model: ModelConfig) -> int:
    """FLOPs of forward and backward per token: 6 N + 12 L C T.

    N counts the weights that multiply activations: all but the embedding look-ups, with the
    head counted also when tied (Kaplan et al., 2020; attention as in Chowdhery et al., 2022,
    appendix B, full and not causal).
    """
    parts = model.parameter_count
    multiplied = parts.attention + parts.mlp + parts.norms + model.vocab_size * model.n_embd
    return 6 * multiplied + 12 * model.n_layer * model.n_embd * model.block_size


def optimal_tokens(model: ModelConfig) -> int:
    """Compute-optimal number of training tokens, about 20 per parameter."""
    return TOKENS_PER_PARAMETER * model.parameters
