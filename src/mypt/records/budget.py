"""What a model costs: FLOPs, tokens, bytes for generation; those for training are in memory.py. Closed form, no torch.

Letters: B batch, T context, C width, H heads, K width of keys and values, V vocabulary, L layers.
"""

from typing import NamedTuple

from mypt.records.memory import FP32_BYTES, PROCESS_BYTES, TABLE_BYTES_PER_ID
from mypt.records.model import ModelConfig

TOKENS_PER_PARAMETER = 20
"""Compute-optimal training tokens per parameter (Hoffmann et al., 2022, "Chinchilla")."""


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


def generation_memory(model: ModelConfig, batch_size: int = 1, *, int8: bool = False) -> GenerationMemory:
    """Estimate the peak while generating with a full key-value cache: in fp32, or with matrices stored in int8."""
    return GenerationMemory(
        process=PROCESS_BYTES + model.vocab_size * TABLE_BYTES_PER_ID,
        weights=_int8_bytes(model) if int8 else model.parameters * FP32_BYTES,
        kv_cache=kv_cache_bytes(model, batch_size),
        logits=3 * batch_size * model.vocab_size * FP32_BYTES,
    )


def _int8_bytes(model: ModelConfig) -> int:
    """A byte for each number of a matrix and 4 for the scale of each row; norms, biases and positions in fp32."""
    parts, width = model.parameter_count, model.n_embd
    heads = 1 if model.traits.tied_head else 2
    inner = (2 if model.traits.activation == "swiglu" else 1) * model.inner_width
    rows = model.n_layer * (2 * width + 2 * model.kv_width + inner + width) + heads * model.vocab_size
    matrices = parts.token_embedding + parts.attention + parts.mlp + parts.head
    return matrices + FP32_BYTES * (rows + parts.position_embedding + parts.norms)


def kv_cache_bytes(model: ModelConfig, batch_size: int = 1) -> int:
    """Bytes of the full key-value cache: 2 x L x B x T x K."""
    return 2 * model.n_layer * batch_size * model.block_size * model.kv_width * FP32_BYTES


def flops_utilization(flops_per_token: float, tokens_per_s: float, peak_flops: float | None) -> float | None:
    """Model FLOPs utilization, MFU (Chowdhery et al., 2022, appendix B): the share of the peak that the model needs.

    Args:
        flops_per_token: as `training_flops_per_token` counts them; what is computed twice counts once.
        tokens_per_s: of training.
        peak_flops: FLOP/s of all devices; None where that is not known, and then so is the share.
    """
    return None if peak_flops is None else flops_per_token * tokens_per_s / peak_flops


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
