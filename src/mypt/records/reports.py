"""What the reading commands answer: one record each, drawn as a table or printed as JSON."""

from typing import Literal

from pydantic import Field

from mypt.records.base import Record
from mypt.records.budget import (
    generation_memory,
    optimal_tokens,
    training_flops_per_token,
)
from mypt.records.dataset import DatasetManifest
from mypt.records.memory import StepShape
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig, TrainingConfig


class FileEntry(Record, frozen=True):
    """One file and its size."""

    name: str
    size_bytes: int


class StateEntry(Record, frozen=True):
    """One saved state."""

    step: int
    path: str
    size_bytes: int
    val_loss: float | None = Field(description="Measured at this very state.")
    best: bool = Field(description="Has the lowest validation loss of all states.")
    whole: bool | None = Field(description="Is what was written, by hash; null: not hashed, its sizes agree.")
    problem: str = Field("", description="What is wrong with it.")


class AsideEntry(Record, frozen=True):
    """One state that was set aside: nothing uses it any more, nothing deletes it."""

    path: str
    why: Literal["broken", "replaced"]
    size_bytes: int


class ModelReport(Record, frozen=True):
    """What `inspect` says of a model."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    kind: Literal["model", "legacy checkpoint"] = "model"
    name: str
    path: str
    parameters: int
    weights: Literal["fp32", "int8"] = Field("fp32", description="int8 is for generation, and not for training.")
    step: int
    tokens_seen: int
    tokenizer: str
    vocab_size: int = Field(description="Ids of the tokenizer; config.vocab_size may be padded.")
    config: ModelConfig
    loss: float | None = None
    val_loss: float | None = None
    bits_per_byte: float | None = None
    initialized_from: str | None = None
    run: RunConfig | None = Field(None, description="Hyper-parameters and data of the newest state.")
    versions: dict[str, str] = Field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    states: tuple[StateEntry, ...] = ()
    set_aside: tuple[AsideEntry, ...] = ()
    size_bytes: int = Field(description="Of everything in the model's folder.")
    losses: tuple[float, ...] = Field((), description="Training losses of the last logged steps.")
    val_losses: tuple[float, ...] = Field((), description="The last validation losses.")


class LengthBucket(Record, frozen=True):
    """Documents longer than half of `up_to_tokens` and no longer than it."""

    up_to_tokens: int
    documents: int


class DocumentSample(Record, frozen=True):
    """The beginning of a document as it reads when decoded."""

    shard: str
    token: int = Field(description="Where it begins in the shard.")
    text: str


class DatasetReport(Record, frozen=True):
    """What `inspect` says of a dataset."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    kind: Literal["dataset"] = "dataset"
    path: str
    tokenizer: str
    train_tokens: int
    val_tokens: int
    documents: int | None
    source_bytes: int
    bytes_per_token: float
    size_bytes: int
    lengths: tuple[LengthBucket, ...] = Field((), description="Documents by their length in tokens.")
    counted_documents: int = Field(0, description="Documents that `lengths` counts: at most the first twenty million.")
    samples: tuple[DocumentSample, ...] = ()
    manifest: DatasetManifest


class PieceEntry(Record, frozen=True):
    """One id of a tokenizer and what it stands for."""

    id: int
    text: str = Field(description="As text; bytes that are no whole character as \\xNN.")


class TokenizerReport(Record, frozen=True):
    """What `tokenizer show` says of a tokenizer."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    name: str
    kind: str
    vocab_size: int
    pattern: str | None = Field(description="Regular expression that cuts words before bytes are merged.")
    special_tokens: dict[str, int]
    end_of_text_id: int | None
    file_sha256: str = Field(description="Of its tokenizer.json, as in the manifest of a dataset.")
    table_sha256: str | None = Field(description="Of its pieces as a .tiktoken file.")
    longest_pieces: tuple[PieceEntry, ...]
    sample_pieces: tuple[PieceEntry, ...] = Field(description="Evenly spread over the ids.")


class TokenizerTest(Record, frozen=True):
    """What `tokenizer test` says of a text."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    kind: str
    encoder: str
    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...] = Field(description="What each id stands for, as in `tokenizer show`.")
    round_trip: bool = Field(description="The ids decode to the text.")


class ParamsReport(Record, frozen=True):
    """What `params` says of an architecture."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    config: ModelConfig
    batch_size: int
    sequences_at_once: int = Field(description="Of one forward and backward pass.")
    optimizer: str
    checkpoint_activations: bool
    precision: str
    parameters: int
    parameters_by_part: dict[str, int]
    training_memory_bytes: int
    training_memory_by_part: dict[str, int]
    generation_memory_bytes: int
    generation_memory_by_part: dict[str, int]
    generation_int8_memory_bytes: int = Field(description="With weights stored by mypt quantize.")
    generation_int8_memory_by_part: dict[str, int]
    training_flops_per_token: int
    optimal_tokens: int


class PresetEntry(Record, frozen=True):
    """One row of `configs`."""

    name: str
    description: str
    parameters: int
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int
    training_memory_bytes: int = Field(description="Of a process that trains on a CPU in fp32.")
    training_memory_on_gpu_bytes: int = Field(description="Of a GPU that trains in bf16, compiled.")
    generation_memory_bytes: int


class ConfigsReport(Record, frozen=True):
    """What `configs` says."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    presets: tuple[PresetEntry, ...]


def params_report(model: ModelConfig, training: TrainingConfig, shape: StepShape) -> ParamsReport:
    """Count an architecture's parameters, bytes and FLOPs, as it is trained."""
    memory = shape.memory()
    generation, in_int8 = generation_memory(model), generation_memory(model, int8=True)
    return ParamsReport(
        config=model,
        batch_size=training.batch_size,
        sequences_at_once=training.sequences_at_once,
        optimizer=training.optimizer,
        checkpoint_activations=training.checkpoint_activations,
        precision=shape.precision,
        parameters=model.parameters,
        parameters_by_part=model.parameter_count._asdict(),
        training_memory_bytes=memory.peak,
        training_memory_by_part=memory.parts,
        generation_memory_bytes=generation.total,
        generation_memory_by_part=generation._asdict(),
        generation_int8_memory_bytes=in_int8.total,
        generation_int8_memory_by_part=in_int8._asdict(),
        training_flops_per_token=training_flops_per_token(model),
        optimal_tokens=optimal_tokens(model),
    )


def preset_entry(name: str, preset: RunConfig) -> PresetEntry:
    """Describe a preset, trained as it says."""
    model, training = preset.model, preset.training
    on_cpu = StepShape.of(model, training, "fp32", on_gpu=False, compiled=False, kernels=True).memory()
    on_gpu = StepShape.of(model, training, "bf16", on_gpu=True, compiled=True).memory()
    return PresetEntry(
        name=name,
        description=preset.description,
        parameters=model.parameters,
        n_layer=model.n_layer,
        n_head=model.n_head,
        n_embd=model.n_embd,
        block_size=model.block_size,
        batch_size=training.batch_size,
        training_memory_bytes=on_cpu.peak,
        training_memory_on_gpu_bytes=on_gpu.peak,
        generation_memory_bytes=generation_memory(model).total,
    )
