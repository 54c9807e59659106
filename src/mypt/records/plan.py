"""The journal of prepare-dataset: what is to be done, fixed before anything is, and what was done."""

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mypt.records.base import Record
from mypt.records.dataset import Split, SplitRule, TokenType, item_bytes
from mypt.records.text import TextConfig
from mypt.records.tokenizer import EncoderChoice

SourceFormat = Literal["txt", "jsonl", "csv", "parquet", "hf"]
Compression = Literal["", "gz", "xz", "zst"]
Engine = Literal["local", "ray"]

STDIN = "-"
PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid"))
class SourceFile:
    """One input, as it was when the plan was made. A plan may have a million: each is a few hundred bytes."""

    path: str = Field(description="A path, '-' for standard input, or hf://NAME.")
    size_bytes: int = Field(ge=0, description="On disk; 0 where it cannot be known.")
    modified_ns: int = 0
    format: SourceFormat = "txt"
    compression: Compression = ""
    part_bytes: tuple[int, ...] = Field(
        (), description="Sizes of the parts that can be read alone: row groups, shards."
    )


class PrepareConfig(Record, frozen=True):
    """How a dataset is prepared. Nothing here but `tokens_per_shard` changes a byte of the result."""

    tokens_per_shard: int = Field(100_000_000, ge=1, description="Tokens per file.")
    workers: int = Field(0, ge=0, le=1024, description="Processes; 0: one for each core.")
    encoder: EncoderChoice = Field("auto", description="auto, tiktoken or gigatoken.")
    engine: Engine = Field("local", description="local or ray.")
    ray_address: str | None = Field(None, description="The Ray cluster; a local one if not set.")
    rank: int | None = Field(None, ge=0, description="Which of `world` machines this is.")
    world: int | None = Field(None, ge=1, description="How many machines share the work.")
    finish: bool = Field(default=False, description="All ranks are done: write the shards and the manifest.")
    fresh: bool = Field(default=False, description="Throw away what an unfinished preparation has done.")


class PreparePlan(Record, frozen=True):
    """The work, whole: a resumed command must mean the same plan."""

    format_version: Literal[1] = 1
    text: TextConfig
    tokenization: str
    tokenizer_sha256: str = Field("", description="Of the tokenizer's record; empty for char, which the text decides.")
    tokens_per_shard: int
    unit_bytes: int
    sources: tuple[SourceFile, ...]


class StreamCounts(Record, frozen=True):
    """What a unit holds of one split."""

    tokens: int = 0
    documents: int = 0


class UnitResult(Record, frozen=True):
    """A finished unit: published last, so what has one is whole."""

    train: StreamCounts = StreamCounts()
    val: StreamCounts = StreamCounts()
    read_bytes: int = 0
    text_bytes: int = 0
    empty_documents: int = 0
    dropped_lines: int = 0

    def stream(self, split: Split) -> StreamCounts:
        """The counts of one split."""
        return self.train if split == "train" else self.val


class StreamRange(Record, frozen=True):
    """A range of tokens of one stream: all train (or val) tokens of all units, end to end."""

    stream: Split
    start: int
    end: int

    @property
    def tokens(self) -> int:
        """Tokens in the range."""
        return self.end - self.start


class Layout(Record, frozen=True):
    """Where every token goes: fixed when all units are finished, before the first shard is."""

    dtype: TokenType
    unit_tokens: dict[Split, tuple[int, ...]] = Field(description="Tokens of each unit, duplicates left out.")
    split_by: SplitRule
    train: StreamRange
    val: StreamRange
    duplicate_documents: int
    duplicate_bytes: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all shards."""
        return (self.train.tokens + self.val.tokens) * item_bytes(self.dtype)

    def range_of(self, split: Split) -> StreamRange:
        """What a split is made of."""
        return self.train if split == "train" else self.val
