"""TokenizerSpec: a tokenizer as JSON, small enough to travel in every dataset and checkpoint."""

import hashlib
import json
from base64 import b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mypt.errors import DataError, MyptError
from mypt.records.base import Record
from mypt.records.text import EncodingErrors, TextFormat

TOKENIZER_FILE = "tokenizer.json"

EncoderName = Literal["tiktoken", "gigatoken"]
"""The library that turns text into ids of a byte-pair table; both give the same ids."""

EncoderChoice = Literal["auto", "tiktoken", "gigatoken"]

GPT2_TABLE_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
"""Hash of GPT-2's rank table in tiktoken's format: any source is this table or is refused."""

END_OF_TEXT = "<|endoftext|>"
"""What GPT-2 calls its end-of-text token, and what new tables call theirs."""

_MOST_IDS = 4_194_304


class Gpt2Spec(Record, frozen=True):
    """GPT-2's byte-pair encoding, named by the hash of its rank table."""

    kind: Literal["gpt2"] = "gpt2"
    sha256: Literal["306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"] = GPT2_TABLE_SHA256

    @property
    def vocab_size(self) -> int:
        """256 bytes, 50,000 merges and end-of-text."""
        return 50_257

    @property
    def special_tokens(self) -> dict[str, int]:
        """Name and id of what never comes from text."""
        return {self.end_of_text: self.vocab_size - 1}

    @property
    def end_of_text(self) -> str:
        """The special token after each document."""
        return END_OF_TEXT


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

    @property
    def vocab_size(self) -> int:
        """One id per character."""
        return len(self.chars)

    @property
    def special_tokens(self) -> dict[str, int]:
        """There are none."""
        return {}

    @property
    def end_of_text(self) -> None:
        """There is none."""
        return None


class ByteSpec(Record, frozen=True):
    """One id per byte of UTF-8, and one for end-of-text."""

    kind: Literal["byte"] = "byte"

    @property
    def vocab_size(self) -> int:
        """256 bytes and end-of-text."""
        return 257

    @property
    def special_tokens(self) -> dict[str, int]:
        """Name and id of what never comes from text."""
        return {self.end_of_text: 256}

    @property
    def end_of_text(self) -> str:
        """The special token after each document."""
        return END_OF_TEXT


class BpeSpec(Record, frozen=True):
    """A byte-level byte-pair encoding with a table of its own, trained or imported."""

    kind: Literal["bpe"] = "bpe"
    pattern: str = Field(min_length=1, description="Regular expression that cuts text into words before merging.")
    special_tokens: dict[str, Annotated[int, Field(ge=0, lt=_MOST_IDS)]] = Field(
        description="Name and id of what never comes from text."
    )
    end_of_text: str | None = Field(description="The special token after each document, if there is one.")
    sha256: str = Field(description="Hash of all other fields.")
    pieces: tuple[str, ...] = Field(
        max_length=_MOST_IDS,
        description="Byte strings in base64, in the order they are merged. They take the ids that special tokens "
        "leave free, in this order.",
    )

    @classmethod
    def of(
        cls, pattern: str, pieces: Iterable[bytes], special_tokens: Mapping[str, int], end_of_text: str | None
    ) -> Self:
        """Describe a table by its pieces in the order of their ranks.

        Raises:
            ValueError: when these can be no table.
        """
        encoded = tuple(b64encode(piece).decode() for piece in pieces)
        specials = dict(special_tokens)
        digest = _digest(pattern, encoded, specials, end_of_text)
        try:
            return cls(pattern=pattern, special_tokens=specials, end_of_text=end_of_text, sha256=digest, pieces=encoded)
        except ValidationError as problem:
            fault = problem.errors(include_url=False)[0]
            where = ".".join(map(str, fault["loc"]))
            message = fault["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {message}" if where else message) from None

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        last = len(self.pieces) - 1
        for token_id in sorted(self.special_tokens.values()):
            last = last + 1 if token_id <= last else token_id
        return last + 1

    def decoded_pieces(self) -> list[bytes]:
        """The pieces as bytes; the position is the rank."""
        return [a2b_base64(piece, strict_mode=True) for piece in self.pieces]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.sha256 != _digest(self.pattern, self.pieces, self.special_tokens, self.end_of_text):
            raise ValueError("the table does not match its own sha256 (it was changed or damaged)")
        try:
            pieces = set(self.decoded_pieces())
        except NotBase64:
            raise ValueError("a piece is not base64") from None
        if len(pieces) != len(self.pieces) or b"" in pieces:
            raise ValueError("a piece is empty or listed twice")
        missing = [byte for byte in range(256) if bytes([byte]) not in pieces]
        if missing:
            raise ValueError(f"{len(missing)} of the 256 single bytes are missing (first 0x{missing[0]:02x})")
        if len(set(self.special_tokens.values())) != len(self.special_tokens):
            raise ValueError("two special tokens share an id")
        if self.end_of_text is not None and self.end_of_text not in self.special_tokens:
            raise ValueError(f"end-of-text {self.end_of_text!r} is no special token")
        return self


TokenizerSpec = Gpt2Spec | CharSpec | ByteSpec | BpeSpec


class TokenizerConfig(Record, frozen=True):
    """How a tokenizer is made of text."""

    input_files: tuple[str, ...] = Field((), description="Text files, folders or globs.")
    kind: Literal["bpe", "char"] = Field("bpe", description="bpe, or char: one id per character.")
    vocab_size: int = Field(8192, ge=257, le=_MOST_IDS, description="Ids of a bpe tokenizer, end-of-text included.")
    sample_bytes: int = Field(2 * 10**9, ge=1, description="About how much text a bpe tokenizer learns from.")
    seed: int = Field(1337, ge=0, lt=2**63, description="Decides which blocks of a larger text are the sample.")
    text_format: TextFormat = Field("auto", description="txt, jsonl, csv, parquet, or auto: by the file's name.")
    text_field: str = Field("text", min_length=1, description="The field (or column) of a record that holds its text.")
    encoding_errors: EncodingErrors = Field("strict", description="What to do with invalid UTF-8: strict or replace.")


class _KindOnly(Record, frozen=True, extra="ignore"):
    kind: Literal["gpt2", "char", "byte", "bpe"]


_SPECS: dict[str, type[Gpt2Spec | CharSpec | ByteSpec | BpeSpec]] = {
    "gpt2": Gpt2Spec,
    "char": CharSpec,
    "byte": ByteSpec,
    "bpe": BpeSpec,
}


def read_tokenizer_spec(path: Path, *, error: type[MyptError] = DataError) -> TokenizerSpec:
    """Read tokenizer.json.

    Raises:
        error: when it is missing or not a tokenizer we know.
    """
    kind = _KindOnly.read(path, error=error).kind
    return _SPECS[kind].read(path, error=error)


def table_sha256(pieces: Iterable[bytes]) -> str:
    """Hash pieces in rank order as tiktoken's file format has them: base64, space, rank, newline."""
    lines = (b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _digest(pattern: str, pieces: tuple[str, ...], special_tokens: dict[str, int], end_of_text: str | None) -> str:
    content = json.dumps([pattern, pieces, special_tokens, end_of_text], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
