"""dataset.json: the manifest of a prepared dataset, written last. What has one is whole."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mypt.errors import DataError
from mypt.records.base import Record
from mypt.records.checksum import SealedRecord
from mypt.records.run import EncodingErrors

DATASET_FILE = "dataset.json"

Split = Literal["train", "val"]


class ShardInfo(Record, frozen=True):
    """One token file: little-endian ids from `byte_offset` on, without a header."""

    path: str = Field(min_length=1, description="Relative to the manifest, or absolute.")
    byte_offset: int = Field(0, ge=0, description="Bytes to skip: headers of foreign shards.")
    dtype: Literal["uint16", "uint32"]
    tokens: int = Field(ge=0)
    documents: int = Field(ge=0, description="Documents that end in this shard.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def item_bytes(self) -> int:
        """Bytes per token."""
        return 2 if self.dtype == "uint16" else 4


class SourceInfo(Record, frozen=True):
    """One text file that went in."""

    path: str
    size_bytes: int = Field(ge=0)


class DatasetManifest(SealedRecord, frozen=True):
    """A dataset: what went in, how, and every shard with its hash."""

    format_version: Literal[1] = 1
    mypt_version: str
    tokenizer_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Hash of tokenizer.json.")
    vocab_size: int = Field(ge=1)
    end_of_text_id: int | None
    val_fraction: float = Field(ge=0, lt=1)
    tokens_per_shard: int = Field(ge=1)
    encoding_errors: EncodingErrors
    sources: tuple[SourceInfo, ...]
    train: tuple[ShardInfo, ...]
    val: tuple[ShardInfo, ...]

    def tokens(self, split: Split) -> int:
        """Tokens in one split."""
        return sum(shard.tokens for shard in self.shards(split))

    def shards(self, split: Split) -> tuple[ShardInfo, ...]:
        """The shards of one split, in order."""
        return self.train if split == "train" else self.val

    @property
    def documents(self) -> int:
        """Documents in both splits."""
        return sum(shard.documents for shard in (*self.train, *self.val))

    @property
    def source_bytes(self) -> int:
        """Bytes of text that went in."""
        return sum(source.size_bytes for source in self.sources)


def read_dataset_manifest(directory: Path) -> DatasetManifest:
    """Read and check dataset.json.

    Raises:
        DataError: when it is missing, malformed or does not match its own checksum.
    """
    path = directory / DATASET_FILE
    if not path.is_file():
        raise DataError(
            f"{directory}: no {DATASET_FILE} here, so this is not a (finished) dataset",
            hint="Make one: mypt prepare-dataset --input-files TEXT --out-dir DIR",
        )
    manifest = DatasetManifest.read(path, error=DataError)
    manifest.require_seal(path, DataError)
    return manifest
