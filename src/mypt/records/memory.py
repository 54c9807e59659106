"""Bytes of one training step: of each part, and of all that is alive at once. Closed form, no torch.

    embeddings -> blocks, which keep activations -> logits and the head's gradient -> blocks backwards -> update

Letters: B batch, T context, C width, H heads, K width of keys and values, V vocabulary, L layers.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from mypt.records.model import ModelConfig
from mypt.records.run import TrainingConfig

PROCESS_BYTES, _COMPILER_BYTES, _WRITTEN_OUT_BYTES = 250 * 2**20, 170 * 2**20, 75 * 2**20
"""Python with torch and its thread pools, before any tensor; torch's compiler; and what that takes more for attention
that is written out. Measured on a CPU."""
_CUDA_BUILD_BYTES = 340 * 2**20
"""What a process takes more where torch is its build with CUDA, even if it computes on the CPU."""

_LARGE_PAGES_BYTES = 30 * 2**20
"""What lies unused in the large pages of a CPU's steps (core/heap.py)."""

TABLE_BYTES_PER_ID = 750
"""A token table as tiktoken holds it: 36 MiB for GPT-2's."""

_CUBLAS_BYTES = 112 * 2**20
"""What NVIDIA's library for matrix products takes of a GPU: measured on Hopper, older ones take less."""

_LOGITS_BYTES, _LOGITS_BYTES_ON_GPU = 31 * 2**20, 512 * 2**20
"""Logits at once. On a CPU, blocks from 32 MiB on go back to the system (core/heap.py); a GPU wants large products."""
_FEWEST_ROWS = 64

STACKED_NUMBERS = 2**24
"""Muon's matrices share products until they are so large together: more would be no faster, and take memory."""
_STACKS = 5
"""Tensors as large as a stack that orthogonalizing it takes at once."""

_EVALUATED_TOKENS_ON_GPU = 4096

WRITTEN_OUT_KEYS = 512
"""Up to so many keys, compiled attention in 16 bits on a CPU keeps all its weights: more would take too much memory."""

FP32_BYTES = 4
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


class TrainingMemory(NamedTuple):
    """Bytes of each part of one training step, and of what is alive at once at its peak.

    Of a GPU's own memory where there is one: the process and the copy that is written lie in the machine's.
    """

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
    """The copy of weights and moments that is written while training goes on."""
    evaluation: int
    """What an evaluation takes of a GPU beside the steps, whose memory their recording keeps."""
    peak: int

    @property
    def parts(self) -> dict[str, int]:
        """All parts; their sum is above the peak, since some never meet."""
        return {name: size for name, size in self._asdict().items() if name != "peak"}


def rows_at_once(positions: int, vocab_size: int, number_bytes: int, *, on_gpu: bool) -> int:
    """Of how many positions the loss holds logits at a time, each number taking so many bytes.

    On a GPU a power of two, which divides most batches: code is compiled for every number that occurs.
    """
    room = _LOGITS_BYTES_ON_GPU if on_gpu else _LOGITS_BYTES
    rows = max(_FEWEST_ROWS, room // (vocab_size * number_bytes))
    return min(positions, 2 ** (rows.bit_length() - 1) if on_gpu else rows)


def evaluated_at_once(sequences: int, block_size: int, *, on_gpu: bool) -> int:
    """How many sequences an evaluation passes at a time, where a step passes so many.

    On a GPU few: its memory comes on top of what recorded steps keep.
    """
    return min(sequences, max(1, _EVALUATED_TOKENS_ON_GPU // block_size)) if on_gpu else sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """What the memory of a step with fp32 weights depends on."""

    model: ModelConfig
    batch_size: int
    """Sequences of block_size tokens per forward and backward pass."""
    precision: str = "fp32"
    """Of activations, and of a copy of the weights: two bytes, if not 'fp32'."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    on_gpu: bool = False
    accumulates: bool = False
    """Whether a step has several such passes, whose gradients add up."""
    checkpointed: bool = False
    """Whether blocks keep their inputs alone, and are passed again for their gradients."""
    compiled: bool = False
    """Whether blocks, and on a GPU the loss, run as compiled code."""
    kernels: bool = False
    """Whether our own kernels compute parts of a step, on a CPU."""
    cuda_build: bool = False
    """Whether torch brings CUDA's libraries."""

    @classmethod
    def of(
        cls,
        model: ModelConfig,
        training: TrainingConfig,
        precision: str,
        *,
        on_gpu: bool,
        compiled: bool,
        kernels: bool = False,
        cuda_build: bool = False,
    ) -> "StepShape":
        """A step of a run; the precision is what was chosen for it."""
        return cls(
            model=model,
            batch_size=training.sequences_at_once,
            precision=precision,
            optimizer=training.optimizer,
            on_gpu=on_gpu,
            accumulates=training.sequences_at_once < training.batch_size,
            checkpointed=training.checkpoint_activations,
            compiled=compiled,
            kernels=kernels,
            cuda_build=cuda_build,
        )

    def memory(self) -> TrainingMemory:
        """Estimate the peak."""
        weights = self._weight_bytes
        in_the_update = weights + (self._direction_bytes if self.optimizer == "muon" else 0)
        process, snapshot = (0, 0) if self.on_gpu else (self._process_bytes, self.snapshot_bytes)
        evaluation = self._evaluation_bytes if self.on_gpu else 0
        kept = weights + self._moment_bytes + self._working_bytes
        return TrainingMemory(
            process=process,
            weights=weights + self._working_bytes,
            optimizer=self._moment_bytes,
            gradients=weights,
            activations=self.activation_bytes,
            workspace=self._workspace_bytes,
            logits=self._loss_bytes,
            snapshot=snapshot,
            evaluation=evaluation,
            peak=process + snapshot + kept + evaluation + max(self._pass_bytes, in_the_update),
        )

    @property
    def snapshot_bytes(self) -> int:
        """The copy of weights and moments, in the machine's own memory."""
        return self._weight_bytes + self._moment_bytes

    @property
    def activation_bytes(self) -> int:
        """Bytes of the tensors one forward pass keeps for the backward pass, logits aside.

        The input of every block alone where activations are checkpointed, else all of `_block_numbers`. Around the
        blocks: the final norm, and dropout's mask after the embedding.
        """
        model, tokens = self.model, self._tokens
        per_block = model.n_embd if self.checkpointed else self._block_numbers
        around_blocks = self._norm_numbers + (model.n_embd if self._keeps_masks else 0)
        kept = tokens * (model.n_layer * per_block + around_blocks) * self._size
        if self._is_written_out and not model.dropout:
            kept += self._all_scores * model.n_layer * self._size
        return kept

    @property
    def _is_written_out(self) -> bool:
        """Whether attention is two products and a softmax (core/model/attention.py)."""
        is_short = self.model.block_size <= WRITTEN_OUT_KEYS
        return self.compiled and not self.on_gpu and self.precision != "fp32" and is_short

    @property
    def _all_scores(self) -> int:
        """Attention's scores in one block."""
        return self._tokens * self.model.block_size * self.model.n_head

    @property
    def _tokens(self) -> int:
        return self.batch_size * self.model.block_size

    @property
    def _size(self) -> int:
        return _BYTES[self.precision]

    @property
    def _embedding_bytes(self) -> int:
        return self.model.vocab_size * self.model.n_embd * FP32_BYTES

    @property
    def _process_bytes(self) -> int:
        process = PROCESS_BYTES + _LARGE_PAGES_BYTES + self.model.vocab_size * TABLE_BYTES_PER_ID
        process += _CUDA_BUILD_BYTES if self.cuda_build else 0
        process += _COMPILER_BYTES if self.compiled else 0
        return process + (_WRITTEN_OUT_BYTES if self._is_written_out else 0)

    @property
    def _weight_bytes(self) -> int:
        return self.model.parameters * FP32_BYTES

    @property
    def _moment_bytes(self) -> int:
        """Two for each number of a parameter; Muon has one for each number of a matrix."""
        counts = self.model.parameter_count
        matrices = (counts.attention + counts.mlp) * FP32_BYTES
        return 2 * self._weight_bytes - (matrices if self.optimizer == "muon" else 0)

    @property
    def _working_bytes(self) -> int:
        """The copy of the weights that is computed with; it shares the embeddings."""
        counts = self.model.parameter_count
        copied = counts.total - counts.token_embedding - counts.position_embedding
        return 0 if self.precision == "fp32" else copied * self._size

    @property
    def _pass_bytes(self) -> int:
        """The most that a forward and backward pass takes beside weights and moments."""
        embedding, activations, workspace = self._embedding_bytes, self.activation_bytes, self._workspace_bytes
        # A tied embedding's gradient comes from the head and from the look-up: two, and their sum.
        tables = (3 if self.model.traits.tied_head else 1) * embedding
        if self.accumulates:
            # The gradients of the passes before are there all the time.
            return self._weight_bytes + self._working_bytes + activations + workspace + max(self._loss_bytes, tables)
        # Gradients take the room of the activations; freed blocks stay with the process (core/heap.py).
        gradients = self._weight_bytes - embedding + self._working_bytes
        in_blocks = max(activations + workspace, gradients)
        if self.checkpointed:
            in_blocks = activations + workspace + gradients  # the last block's too is passed again beside all gradients
        return max(activations + workspace + self._loss_bytes, in_blocks + tables)

    @property
    def _loss_bytes(self) -> int:
        """The head's gradient with some logits, when all activations are there; then the embedding's.

        Logits are overwritten by their own gradient. As written, a GPU has them all in fp32 between the two.
        """
        model, size = self.model, self._size
        rows = rows_at_once(self._tokens, model.vocab_size, size, on_gpu=self.on_gpu)
        widened = FP32_BYTES if self.on_gpu and not self.compiled and self.precision != "fp32" else 0
        return self._embedding_bytes + max(rows * model.vocab_size * (size + widened), self._embedding_bytes)

    @property
    def _evaluation_bytes(self) -> int:
        """One block's tensors, without gradients, and some logits, in fp32 too."""
        model = self.model
        tokens = evaluated_at_once(self.batch_size, model.block_size, on_gpu=True) * model.block_size
        inside = (4 if model.traits.activation == "swiglu" else 2) * model.inner_width
        block = tokens * (4 * model.n_embd + inside) * self._size
        rows = rows_at_once(tokens, model.vocab_size, self._size, on_gpu=False)
        return block + rows * model.vocab_size * (self._size + FP32_BYTES)

    @property
    def _direction_bytes(self) -> int:
        """Where Muon's matrices are to go, all before the first moves, and what finding it for some of them takes."""
        numbers = self.model.parameter_count.attention + self.model.parameter_count.mlp
        largest = self.model.n_embd * self.model.inner_width
        size = self._size if self.precision == "bf16" else FP32_BYTES
        return (numbers + _STACKS * min(numbers, max(STACKED_NUMBERS, largest))) * size

    @property
    def _block_numbers(self) -> int:
        """Numbers per token that one block keeps.

        Each norm's input and output, and with RMSNorm the normed input before its weights; q k v;
        attention's output; the MLP before and after the activation, and SwiGLU's gate too. Queries and keys
        that are normed and turned are kept in both forms; a key or value that heads share is copied for each.
        Compiled code computes some of it anew, and kernels all between q k v and attention's output. Dropout adds its
        masks (2), but for kernels, and on a CPU attention's probabilities: all, dropped, and their mask, each H x T.
        """
        model, traits = self.model, self.model.traits
        width, kv_width = model.n_embd, model.kv_width
        attention = width + 2 * kv_width + width
        if traits.rotary and not self.kernels:
            attention += width + kv_width if kv_width == width else 3 * width
            attention += 0 if self.compiled else width + kv_width
        gate_kept = 3 if self._is_fused else 4
        mlp = (gate_kept if traits.activation == "swiglu" else 2) * model.inner_width
        dropped = 2 * width + 3 * self._score_numbers if self._keeps_masks else 0
        return 2 * self._norm_numbers + attention + mlp + dropped

    @property
    def _norm_numbers(self) -> int:
        return (3 if self.model.traits.norm == "rms" and not self._is_fused else 2) * self.model.n_embd

    @property
    def _keeps_masks(self) -> bool:
        """Whether what was dropped is kept; kernels know it from a number."""
        return self.model.dropout > 0 and not self.kernels

    @property
    def _is_fused(self) -> bool:
        """Whether what belongs together is one operation."""
        return self.compiled or self.kernels

    @property
    def _score_numbers(self) -> int:
        """Attention's scores of a token, where dropout has attention spelled out: a GPU's kernels and ours know it."""
        is_spelled_out = self._keeps_masks and not self.on_gpu
        return self.model.n_head * self.model.block_size if is_spelled_out else 0

    @property
    def _workspace_bytes(self) -> int:
        """What the backward pass of one block takes beside the activations, and what forward passes leave unused.

        Backward: gradients of the inside of the MLP, of q k v, also before they were turned, and of two residual sums.
        Forward: the outputs of attention and MLP, and the products and sums of turning. Where attention is spelled out,
        its scores, and three gradients of their size; compiled, one of them in fp32. With checkpoints, the block's
        activations, made anew.
        On a CPU glibc does not give the room of a freed tensor to one of the same size: what forward passes take for a
        while adds up over the blocks, and activations that are made anew stand beside the room of the first ones.
        """
        model, traits, scores = self.model, self.model.traits, self._score_numbers
        width, kv_width = model.n_embd, model.kv_width
        turned = width + kv_width if traits.rotary and not self.kernels else 0
        backward = (3 if traits.activation == "swiglu" else 2) * model.inner_width
        backward += width + 2 * kv_width + turned + 2 * width + 3 * scores
        forward = (2 * width + 3 * turned + scores) * (1 if self.checkpointed or self.on_gpu else model.n_layer)
        again = self._block_numbers * (1 if self.on_gpu else 2) if self.checkpointed else 0
        taken = self._tokens * (backward + forward + again) * self._size + (_CUBLAS_BYTES if self.on_gpu else 0)
        if self._is_written_out and not model.dropout:
            taken += self._all_scores * (2 * self._size + FP32_BYTES)
        return taken
