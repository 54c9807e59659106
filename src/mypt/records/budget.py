"""What a model costs: bytes for training and generation, FLOPs, tokens. Closed form, no torch.

Letters: B batch, T context, C width, H heads, K width of keys and values, V vocabulary, L layers.
"""

from typing import NamedTuple

from mypt.records.model import ModelConfig
from mypt.records.run import TrainingConfig

TOKENS_PER_PARAMETER = 20
"""Compute-optimal training tokens per parameter (Hoffmann et al., 2022, "Chinchilla")."""

PROCESS_BYTES, COMPILER_BYTES = 250 * 2**20, 170 * 2**20
"""Python with torch and its thread pools, before any tensor, and torch's compiler: measured on a CPU."""

_TABLE_BYTES_PER_ID = 750
"""A token table as tiktoken holds it: 36 MiB for GPT-2's."""

_LOGITS_BYTES, _LOGITS_BYTES_ON_GPU = 31 * 2**20, 512 * 2**20
"""Logits at once. On a CPU, blocks from 32 MiB on go back to the system (core/heap.py); a GPU wants large products."""
_FEWEST_ROWS = 64

STACKED_NUMBERS = 2**24
"""Muon's matrices share products until they are so large together: more would be no faster, and take memory."""
_STACKS = 5
"""Tensors as large as a stack that orthogonalizing it takes at once."""

WRITTEN_OUT_KEYS = 512
"""Up to so many keys, compiled attention in 16 bits on a CPU keeps all its weights: more would take too much memory."""

_FP32 = 4
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


class TrainingMemory(NamedTuple):
    """Bytes of each part of one training step, and of what is alive at once at its peak."""

    process: int
    weights: int
    optimizer: int
    gradients: int
    activations: int
    workspace: int
    """What passing one block takes for a while; on a CPU also the room that such tensors leave unused behind them."""
    logits: int
    """Those of some positions, and the gradient of the head."""
    snapshot: int
    """The copy of weights and moments that is written while training goes on, in the machine's own memory."""
    peak: int

    @property
    def parts(self) -> dict[str, int]:
        """All parts; their sum is above the peak, since some never meet."""
        return {name: size for name, size in self._asdict().items() if name != "peak"}


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


def rows_at_once(vocab_size: int, number_bytes: int, *, on_gpu: bool) -> int:
    """Of how many positions the loss holds logits at a time, each number taking so many bytes."""
    room = _LOGITS_BYTES_ON_GPU if on_gpu else _LOGITS_BYTES
    return max(_FEWEST_ROWS, room // (vocab_size * number_bytes))


def memory_as_trained(
    model: ModelConfig, training: TrainingConfig, precision: str, *, on_gpu: bool = False, compiled: bool = False
) -> TrainingMemory:
    """Estimate the peak of a step of a run; the precision is what was chosen for it."""
    return training_memory(
        model,
        training.sequences_at_once,
        precision,
        training.optimizer,
        on_gpu=on_gpu,
        accumulates=training.sequences_at_once < training.batch_size,
        checkpoint_activations=training.checkpoint_activations,
        compiled=compiled,
    )


def training_memory(
    model: ModelConfig,
    batch_size: int,
    precision: str = "fp32",
    optimizer: str = "adamw",
    *,
    on_gpu: bool = False,
    accumulates: bool = False,
    checkpoint_activations: bool = False,
    compiled: bool = False,
) -> TrainingMemory:
    """Estimate the peak of one step with fp32 weights.

    Args:
        model: the architecture.
        batch_size: sequences of block_size tokens per forward and backward pass.
        precision: 'fp32', or 'bf16' or 'fp16': activations, and a copy of the weights, in two bytes.
        optimizer: 'adamw' or 'muon'.
        on_gpu: where it runs.
        accumulates: whether a step has several such passes, whose gradients add up.
        checkpoint_activations: whether blocks keep their inputs alone, and are passed again for their gradients.
        compiled: whether blocks run as compiled code.
    """
    counts, size = model.parameter_count, _BYTES[precision]
    weights = counts.total * _FP32
    copied = 0 if precision == "fp32" else counts.total - counts.token_embedding - counts.position_embedding
    working = copied * size
    moments = 2 * weights
    activations = activation_bytes(model, batch_size, precision, checkpointed=checkpoint_activations)
    if compiled and not on_gpu and precision != "fp32" and model.block_size <= WRITTEN_OUT_KEYS and not model.dropout:
        activations += batch_size * model.block_size**2 * model.n_head * model.n_layer * size
    workspace = _workspace_bytes(model, batch_size, size, on_gpu=on_gpu, checkpointed=checkpoint_activations)
    embedding = model.vocab_size * model.n_embd * _FP32
    # The forward pass ends with all activations, the head's gradient and some logits; gradients of tables come next.
    loss = embedding + max(_logits_bytes(model, batch_size, precision, on_gpu=on_gpu), embedding)
    # A tied embedding's gradient comes from the head and from the look-up: two, and their sum.
    tables = (3 if model.traits.tied_head else 1) * embedding
    if accumulates:
        # The gradients of the passes before are there all the time.
        loss = max(loss, tables)
        in_the_pass = weights + working + activations + workspace + loss
    else:
        # Gradients take the room of the activations; freed blocks stay with the process (core/heap.py).
        gradients = weights - embedding + working
        in_blocks = max(activations + workspace, gradients)
        if checkpoint_activations:
            in_blocks = activations + workspace + gradients  # the last block's too is passed again beside all gradients
        in_the_pass = max(activations + workspace + loss, in_blocks + tables)
    in_the_update = weights
    if optimizer == "muon":
        moments -= (counts.attention + counts.mlp) * _FP32  # one for each number of a matrix
        in_the_update += _direction_bytes(model, size if precision == "bf16" else _FP32)
    process = PROCESS_BYTES + (COMPILER_BYTES if compiled else 0) + model.vocab_size * _TABLE_BYTES_PER_ID
    return TrainingMemory(
        process=process,
        weights=weights + working,
        optimizer=moments,
        gradients=weights,
        activations=activations,
        workspace=workspace,
        logits=loss,
        snapshot=weights + moments,
        peak=process + 2 * (weights + moments) + working + max(in_the_pass, in_the_update),
    )


def _logits_bytes(model: ModelConfig, batch_size: int, precision: str, *, on_gpu: bool) -> int:
    """Those of some positions, overwritten by their own gradient; a GPU has them all in fp32 between the two."""
    size = _BYTES[precision]
    rows = min(batch_size * model.block_size, rows_at_once(model.vocab_size, size, on_gpu=on_gpu))
    return rows * model.vocab_size * (size + (_FP32 if on_gpu and precision != "fp32" else 0))


def _direction_bytes(model: ModelConfig, size: int) -> int:
    """Where Muon's matrices are to go, all before the first moves, and what finding it for some of them takes."""
    numbers = model.parameter_count.attention + model.parameter_count.mlp
    largest = model.n_embd * model.inner_width
    return (numbers + _STACKS * min(numbers, max(STACKED_NUMBERS, largest))) * size


def activation_bytes(
    model: ModelConfig, batch_size: int, precision: str = "fp32", *, checkpointed: bool = False
) -> int:
    """Bytes of the tensors one forward pass keeps for the backward pass, logits aside.

    The input of every block alone where activations are checkpointed, else all of `_block_numbers`. Around the
    blocks: the final norm, and dropout's mask after the embedding.
    """
    tokens, size = batch_size * model.block_size, _BYTES[precision]
    per_block = model.n_embd if checkpointed else _block_numbers(model)
    around_blocks = _norm_numbers(model) + (model.n_embd if model.dropout else 0)
    return tokens * (model.n_layer * per_block + around_blocks) * size


def _block_numbers(model: ModelConfig) -> int:
    """Numbers per token that one block keeps.

    Each norm's input and output, and with RMSNorm the normed input before its weights; q k v;
    attention's output; the MLP before and after the activation, and SwiGLU's gate too. Queries and keys
    that are normed and turned are kept in both forms; a key or value that heads share is copied for each.
    Dropout adds its masks (2) and attention's probabilities: all, dropped, and their mask, each H x T.
    """
    width, kv_width, traits = model.n_embd, model.kv_width, model.traits
    attention = width + 2 * kv_width + width
    if traits.rotary:
        attention += (width + kv_width) + (width + kv_width if kv_width == width else 3 * width)
    mlp = (4 if traits.activation == "swiglu" else 2) * model.inner_width
    dropped = 2 * width + 3 * model.n_head * model.block_size if model.dropout else 0
    return 2 * _norm_numbers(model) + attention + mlp + dropped


def _norm_numbers(model: ModelConfig) -> int:
    return (3 if model.traits.norm == "rms" else 2) * model.n_embd


def _workspace_bytes(model: ModelConfig, batch_size: int, size: int, *, on_gpu: bool, checkpointed: bool) -> int:
    """What the backward pass of one block takes beside the activations, and what forward passes leave unused.

    Backward: gradients of the inside of the MLP, of q k v, also before they were turned, and of two residual sums.
    Forward: the outputs of attention and MLP, and the products and sums of turning. Where dropout has attention
    spelled out, its scores, and three gradients of their size. With checkpoints, the block's activations, made anew.
    On a CPU glibc does not give the room of a freed tensor to one of the same size: what forward passes take for a
    while adds up over the blocks, and activations that are made anew stand beside the room of the first ones.
    """
    width, kv_width, traits = model.n_embd, model.kv_width, model.traits
    turned = width + kv_width if traits.rotary else 0
    scores = model.n_head * model.block_size if model.dropout else 0
    backward = (3 if traits.activation == "swiglu" else 2) * model.inner_width
    backward += width + 2 * kv_width + turned + 2 * width + 3 * scores
    forward = (2 * width + 3 * turned + scores) * (1 if checkpointed or on_gpu else model.n_layer)
    again = _block_numbers(model) * (1 if on_gpu else 2) if checkpointed else 0
    return batch_size * model.block_size * (backward + forward + again) * size


def generation_memory(model: ModelConfig, batch_size: int = 1) -> GenerationMemory:
    """Estimate the peak while generating in fp32 with a full key-value cache."""
    return GenerationMemory(
        process=PROCESS_BYTES + model.vocab_size * _TABLE_BYTES_PER_ID,
        weights=model.parameters * _FP32,
        kv_cache=kv_cache_bytes(model, batch_size),
        logits=3 * batch_size * model.vocab_size * _FP32,
    )


def kv_cache_bytes(model: ModelConfig, batch_size: int = 1) -> int:
    """Bytes of the full key-value cache: 2 x L x B x T x K."""
    return 2 * model.n_layer * batch_size * model.block_size * model.kv_width * _FP32


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
