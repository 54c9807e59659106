"""dataset.json: the manifest of a prepared dataset, written last. What has one is whole."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mypt.errors import DataError
from mypt.records.base import Record
from mypt.records.checksum import SealedRecord
from mypt.records.text import TextConfig

DATASET_FILE = "dataset.json"

Split = Literal["train", "val"]
SplitRule = Literal["content", "tail", "given"]
TokenType = Literal["uint16", "uint32"]


def item_bytes(dtype: TokenType) -> int:
    """Bytes per token."""
    return 2 if dtype == "uint16" else 4


class ShardInfo(Record, frozen=True):
    """One token file: little-endian ids from `byte_offset` on, without a header."""

    path: str = Field(min_length=1, description="Relative to the manifest, or absolute.")
    byte_offset: int = Field(0, ge=0, description="Bytes to skip: headers of foreign shards.")
    dtype: TokenType
    tokens: int = Field(ge=0)
    documents: int | None = Field(
        None, ge=0, description="Documents that end in this shard, listed in its .idx file; null: not known."
    )
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Of the whole file; null: never hashed.")
    index_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="Of the .idx file.")

    @property
    def item_bytes(self) -> int:
        """Bytes per token."""
        return item_bytes(self.dtype)


class SourceInfo(Record, frozen=True):
    """One text file that went in."""

    path: str
    size_bytes: int = Field(ge=0)


class TextCounts(Record, frozen=True):
    """What became of the text."""

    source_files: int = Field(0, ge=0, description="Files that went in.")
    source_bytes: int = Field(0, ge=0, description="Their bytes on disk.")
    documents: int = Field(0, ge=0, description="Documents kept.")
    text_bytes: int = Field(0, ge=0, description="UTF-8 bytes of the documents kept.")
    empty_documents: int = Field(0, ge=0, description="Documents without text, left out.")
    duplicate_documents: int = Field(0, ge=0, description="Documents whose text came before; left out if asked.")
    dropped_lines: int = Field(0, ge=0, description="Lines left out for their length.")


class DatasetManifest(SealedRecord, frozen=True):
    """A dataset: what went in, how, and every shard with its hash."""

    format_version: Literal[1] = 1
    mypt_version: str
    tokenizer_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Hash of tokenizer.json.")
    vocab_size: int = Field(ge=1)
    end_of_text_id: int | None
    encoder: str | None = Field(None, description="What turned text into ids, with its version.")
    split_by: SplitRule = Field(description="How validation text was chosen: by content, from the tail, or given.")
    text: TextConfig | None = Field(None, description="How files became documents; null for foreign shards.")
    counts: TextCounts = TextCounts()
    tokens_per_shard: int | None = Field(None, ge=1)
    sources: tuple[SourceInfo, ...] = Field((), description="The files that went in: the first thousand of them.")
    train: tuple[ShardInfo, ...]
    val: tuple[ShardInfo, ...]

    def tokens(self, split: Split) -> int:
        """Tokens in one split."""
        return sum(shard.tokens for shard in self.shards(split))

    def shards(self, split: Split) -> tuple[ShardInfo, ...]:
        """The shards of one split, in order."""
        return self.train if split == "train" else self.val

    @property
    def documents(self) -> int | None:
        """Documents in both splits; None where foreign shards do not tell."""
        known = [shard.documents for shard in (*self.train, *self.val) if shard.documents is not None]
        return sum(known) if len(known) == len(self.train) + len(self.val) else None


def read_dataset_manifest(directory: Path) -> DatasetManifest:
    """Read and check dataset.json.

    Raises:
        DataError: when it is missing, malformed or does not match its own checksum.
    """
    path = directory / DATASET_FILE
    if not path.is_file():
        unfinished = directory.parent / f"{directory.name}.partial"
        raise DataError(
            f"{directory}: no {DATASET_FILE} here, so this is not a (finished) dataset",
            hint=f"{unfinished} is its beginning: the mypt prepare-dataset command that made it goes on with it."
            if directory.name and unfinished.is_dir()
            else "Make one: mypt prepare-dataset --input-files TEXT --out-dir DIR",
        )
    return DatasetManifest.read(path, error=DataError)
