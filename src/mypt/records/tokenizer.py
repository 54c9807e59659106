"""TokenizerSpec: a tokenizer as JSON, small enough to travel in every dataset and checkpoint."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from mypt.errors import DataError, MyptError
from mypt.records.base import Record

TOKENIZER_FILE = "tokenizer.json"

GPT2_TABLE_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
"""Hash of GPT-2's rank table in tiktoken's format: any source is this table or is refused."""


class Gpt2Spec(Record, frozen=True):
    """GPT-2's byte-pair encoding, named by the hash of its rank table."""

    kind: Literal["gpt2"] = "gpt2"
    sha256: Literal["306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"] = GPT2_TABLE_SHA256


class CharSpec(Record, frozen=True):
    """One id per character, in the order of this list."""

    kind: Literal["char"] = "char"
    chars: tuple[str, ...] = Field(min_length=1, description="The characters; the position is the id.")

    @model_validator(mode="after")
    def _distinct_characters(self) -> Self:
        if any(len(char) != 1 for char in self.chars):
            raise ValueError("every entry must be exactly one character")
        if len(set(self.chars)) != len(self.chars):
            raise ValueError("a character is listed twice")
        return self


class ByteSpec(Record, frozen=True):
    """One id per byte of UTF-8, and one for end-of-text."""

    kind: Literal["byte"] = "byte"


TokenizerSpec = Gpt2Spec | CharSpec | ByteSpec


class _KindOnly(Record, frozen=True, extra="ignore"):
    kind: Literal["gpt2", "char", "byte"]


_SPECS: dict[str, type[Gpt2Spec | CharSpec | ByteSpec]] = {"gpt2": Gpt2Spec, "char": CharSpec, "byte": ByteSpec}


def read_tokenizer_spec(path: Path, *, error: type[MyptError] = DataError) -> TokenizerSpec:
    """Read tokenizer.json.

    Raises:
        error: when it is missing or not a tokenizer we know.
    """
    kind = _KindOnly.read(path, error=error).kind
    return _SPECS[kind].read(path, error=error)
