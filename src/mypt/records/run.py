"""RunConfig: everything a training run is told. Defaults and meaning of each knob live here."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mypt.records.base import Record
from mypt.records.batch import MOST_SEQUENCES
from mypt.records.model import ModelConfig
from mypt.records.text import TextConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "wsd"]

LEARNING_RATES: dict[Optimizer, float] = {"adamw": 6e-4, "muon": 0.04}
"""Where nobody says one. AdamW moves a number by about its rate, Muon a whole matrix: they do not compare."""


class TrainingConfig(Record, frozen=True):
    """How the weights are found."""

    batch_size: int = Field(16, ge=1, le=MOST_SEQUENCES, description="Sequences per optimizer step.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=MOST_SEQUENCES,
        description="Sequences per forward and backward pass; the whole batch if not set.",
    )
    checkpoint_activations: bool = Field(
        default=False,
        description="Compute each block anew in the backward pass: less memory, more time, same bits.",
    )
    max_iters: int = Field(1000, ge=1, le=1_000_000_000, description="Optimizer steps of the whole run.")
    optimizer: Optimizer = Field(
        "adamw", description="adamw, or muon: Muon for the matrices of the blocks and AdamW for the rest."
    )
    learning_rate: float = Field(
        default_factory=lambda given: LEARNING_RATES[given["optimizer"]],
        gt=0,
        le=10,
        description="Peak learning rate; if not set, the optimizer's own: 0.0006 with adamw, 0.04 with muon.",
        json_schema_extra={"default": "the optimizer's"},
    )
    schedule: Schedule = Field(
        "cosine", description="How the learning rate falls after warm-up: cosine, linear or wsd."
    )
    decay_share: float = Field(
        0.7, ge=0, le=1, description="Share of the steps in which wsd falls; before, it is flat."
    )
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Final learning rate as a share of the peak.")
    warmup_iters: int = Field(50, ge=0, le=1_000_000_000, description="Steps of linear warm-up.")
    weight_decay: float = Field(
        0.1, ge=0, le=10, description="Decay of matrices; with muon, of the blocks' matrices alone."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first-moment decay.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second-moment decay.")
    grad_clip: float = Field(1.0, ge=0, le=1e6, description="Largest gradient norm; 0 switches it off.")
    eval_interval: int = Field(250, ge=1, le=1_000_000_000, description="Steps between evaluations.")
    eval_iters: int = Field(10, ge=1, le=1_000_000, description="Validation batches per evaluation.")
    patience: int | None = Field(
        None, ge=1, le=1_000_000, description="End after this many evaluations without a better validation loss."
    )
    save_interval: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Steps between checkpoints; by time if not set."
    )
    save_interval_s: float = Field(
        60, gt=0, le=1e6, description="Seconds between checkpoints where save_interval is not set."
    )
    keep_every: int | None = Field(
        None, ge=1, le=1_000_000_000, description="Save at, and keep for good, every step that this divides."
    )
    on_save_error: Literal["warn", "stop"] = Field("warn", description="When a save fails: warn and train on, or stop.")
    max_skips: int = Field(
        3, ge=0, le=1_000_000, description="Steps whose loss or gradient is no number, left out before training ends."
    )
    log_interval: int = Field(1, ge=1, le=1_000_000, description="Steps between logged losses.")
    seed: int = Field(1337, ge=0, lt=2**63, description="Seed of weights, data order and dropout.")
    device: str = Field("auto", min_length=1, max_length=32, description="auto, cpu, cuda, cuda:1 or mps.")
    precision: Precision = Field("auto", description="fp32, bf16, fp16, or auto: what this machine does best.")
    compile: Compile = Field(
        "auto", description="Compile the blocks before training: on, off, or auto: where it ends the run sooner."
    )
    kernels: Compile = Field(
        "auto", description="Compute by kernels of our own on CPUs: on, off, or auto: where there is a C compiler."
    )
    record_steps: bool = Field(
        default=True, description="On CUDA, record the steps as one graph: faster, the same bits."
    )
    document_mask: bool = Field(
        default=False, description="Attend and learn inside documents only, never across their ends."
    )

    @property
    def sequences_at_once(self) -> int:
        """Sequences of one forward and backward pass."""
        return min(self.micro_batch_size or self.batch_size, self.batch_size)


class DataConfig(TextConfig, frozen=True):
    """Where the tokens come from."""

    input_files: tuple[str, ...] = Field((), description="Text files, folders or globs.")
    dataset_dir: tuple[str, ...] = Field(
        (), description="Prepared datasets instead of text files; several are mixed: a:0.7 b:0.3."
    )
    tokenization: str = Field("gpt2", min_length=1, description="gpt2, char, byte, or a tokenizer file.")

    def text(self) -> TextConfig:
        """The part that says what a document is."""
        return TextConfig(**{name: getattr(self, name) for name in TextConfig.model_fields})

    @field_validator("dataset_dir", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        if isinstance(value, list):
            return tuple(value)
        return (value,) if isinstance(value, str) else value or ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.input_files and self.dataset_dir:
            raise ValueError("give text files (--input-file) or a dataset (--dataset-dir), not both")
        return self


class RunConfig(Record, frozen=True):
    """A preset or a user's config: model, training, data. Also the whole of a resolved run."""

    name: str = Field("", max_length=200, description="Human name.")
    description: str = Field("", max_length=2000, description="What it is for.")
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    data: DataConfig = DataConfig()
