"""EvaluationConfig: what `mypt evaluate` is told; EvaluationReport: what it answers."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from mypt.events import Scored
from mypt.records.base import Record
from mypt.records.text import Unknown

EvaluatedSplit = Literal["val", "train", "all"]

_TOKENS_AT_ONCE, _TOKENS_AT_ONCE_ON_GPU = 4096, 16_384
"""A CPU is busy with fewer, and they take tens of megabytes; a GPU is empty beside an evaluation and wants more."""
_MOST_APART = 1.05
"""A split by the end of a text differs between tokenizers by a token and by how evenly they cut: less than this."""


class EvaluationConfig(Record, frozen=True):
    """Which text is scored, and how."""

    input_files: tuple[str, ...] = Field((), description="Text files, folders or globs.")
    dataset_dir: tuple[str, ...] = Field((), description="Prepared datasets instead of text files.")
    split: EvaluatedSplit = Field(
        "val", description="What is scored of the text: val (what training holds out of it), train, or all."
    )
    stride: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Tokens between the starts of two windows: fewer give each token more context, and take longer; "
        "the context length if not set.",
    )
    batch_size: int | None = Field(
        None, ge=1, le=1_000_000, description="Sequences at a time; as many as suit the device if not set."
    )
    unknown: Unknown = Field("error", description="What to do with characters a char model does not know.")
    device: str = Field("auto", min_length=1, max_length=32, description="auto, cpu, cuda, cuda:1 or mps.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.input_files and self.dataset_dir:
            raise ValueError("give text files (--input-file) or a dataset (--dataset-dir), not both")
        return self

    def sequences_at_once(self, block_size: int, *, on_gpu: bool) -> int:
        """How many windows pass the model together."""
        tokens = _TOKENS_AT_ONCE_ON_GPU if on_gpu else _TOKENS_AT_ONCE
        return self.batch_size or max(1, tokens // block_size)


class ModelScore(Record, frozen=True):
    """How well one model predicts a text."""

    name: str
    path: str = Field(description="The state whose weights were scored.")
    step: int
    parameters: int
    tokenizer: str
    block_size: int
    stride: int
    loss: float = Field(description="Nats per token.")
    perplexity: float | None = Field(description="e to the loss; null where it is larger than any number.")
    bits_per_byte: float = Field(description="Comparable between tokenizers.")
    accuracy: float = Field(description="Share of the tokens that were the likeliest by the model.")
    tokens: int = Field(description="Of the split.")
    text_bytes: int = Field(description="Of the split, as UTF-8.")
    predicted_tokens: int = Field(description="All but the first.")
    predicted_bytes: int = Field(description="What bits_per_byte divides by.")
    device: str
    elapsed_s: float
    tokens_per_s: float


class EvaluationReport(Record, frozen=True):
    """What `evaluate` says: one row for each model, in the order they were named."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    text: tuple[str, ...] = Field(description="Files or datasets, as they were named.")
    split: EvaluatedSplit
    models: tuple[ModelScore, ...]

    @property
    def is_same_text(self) -> bool:
        """Whether all models were scored on the same bytes: tokenizers may cut a text at different places."""
        return len({model.text_bytes for model in self.models}) == 1

    @property
    def compares_bytes(self) -> bool:
        """Whether figures per byte compare: the texts are the same, but for some bytes."""
        sizes = [model.text_bytes for model in self.models]
        return max(sizes) <= min(sizes) * _MOST_APART

    @property
    def compares_tokens(self) -> bool:
        """Whether figures per token compare too: all were scored on the same tokens."""
        return len({(model.tokenizer, model.tokens, model.text_bytes) for model in self.models}) == 1


def evaluation_report(scored: Sequence[Scored], split: EvaluatedSplit) -> EvaluationReport:
    """Put what was told of each model together; at least one."""
    models = tuple(
        ModelScore(
            name=event.model_name,
            path=event.path,
            step=event.step,
            parameters=event.parameters,
            tokenizer=event.tokenizer,
            block_size=event.block_size,
            stride=event.stride,
            loss=event.loss,
            perplexity=event.perplexity,
            bits_per_byte=event.bits_per_byte,
            accuracy=event.accuracy,
            tokens=event.tokens,
            text_bytes=event.text_bytes,
            predicted_tokens=event.predicted_tokens,
            predicted_bytes=event.predicted_bytes,
            device=event.device,
            elapsed_s=event.elapsed_s,
            tokens_per_s=event.tokens_per_s,
        )
        for event in scored
    )
    return EvaluationReport(text=scored[0].text, split=split, models=models)
