"""What is told while text becomes tokens, shards and tokenizers."""

from dataclasses import dataclass

from mypt.events.base import Event


@dataclass(frozen=True, slots=True)
class TextRead(Event):
    """Progress of turning text into tokens, in bytes of the sources."""

    event = "text_read"
    done_bytes: int
    total_bytes: int
    tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class PreparationPlanned(Event):
    """What prepare-dataset is about to do; sizes are estimates from a sample of the text."""

    event = "preparation_planned"
    path: str
    sources: int
    source_bytes: int
    units: int
    finished_units: int
    estimated_tokens: int
    estimated_bytes: int
    free_bytes: int
    workers: int
    encoder: str


@dataclass(frozen=True, slots=True)
class RankFinished(Event):
    """The share of one machine is done; the dataset is written by the command with --finish."""

    event = "rank_finished"
    rank: int
    world: int
    units: int
    path: str


@dataclass(frozen=True, slots=True)
class ShardWritten(Event):
    """One token shard was published."""

    event = "shard_written"
    path: str
    tokens: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DatasetWritten(Event):
    """The dataset is whole: its manifest was written."""

    event = "dataset_written"
    path: str
    train_tokens: int
    val_tokens: int
    shards: int
    documents: int | None
    source_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class DatasetCompressed(Event):
    """All shards of a dataset are packed."""

    event = "dataset_compressed"
    path: str
    raw_bytes: int
    packed_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class ShardsChecked(Event):
    """Progress of reading another program's shards: every id must be one of the tokenizer's."""

    event = "shards_checked"
    done_bytes: int
    total_bytes: int
    tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class TextSampled(Event):
    """Progress of learning a tokenizer: how much was read, and how much of it was taken."""

    event = "text_sampled"
    done_bytes: int
    total_bytes: int
    sample_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class TokenizerWritten(Event):
    """A tokenizer was made and checked. `bytes_per_token` is measured on some of the sample."""

    event = "tokenizer_written"
    path: str
    kind: str
    vocab_size: int
    sample_bytes: int
    bytes_per_token: float
    elapsed_s: float
