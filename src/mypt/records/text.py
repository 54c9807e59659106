"""TextConfig: how files become documents. The same for training on text and for preparing datasets."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mypt.records.base import Record

EncodingErrors = Literal["strict", "replace"]
TextFormat = Literal["auto", "txt", "jsonl", "csv", "parquet"]
Unknown = Literal["error", "skip"]
Normalization = Literal["nfc", "nfkc", "lowercase", "spaces"]


class TextConfig(Record, frozen=True):
    """What a document is, and what is done to it. By default: nothing, the text is kept as it is."""

    val_fraction: float = Field(0.1, ge=0, lt=1, description="Share of the documents held out for validation.")
    encoding_errors: EncodingErrors = Field("strict", description="What to do with invalid UTF-8: strict or replace.")
    text_format: TextFormat = Field("auto", description="txt, jsonl, csv, parquet, or auto: by the file's name.")
    text_field: str = Field("text", min_length=1, description="The field (or column) of a record that holds its text.")
    document_separator: str | None = Field(
        None, min_length=1, description="What separates documents in a .txt file; a file is one document if not set."
    )
    normalize: tuple[Normalization, ...] = Field(
        (), description="Changes to the text, in this order: nfc, nfkc, lowercase, spaces (runs of them become one)."
    )
    min_line_chars: int = Field(0, ge=0, le=1_000_000, description="Drop lines with fewer characters.")
    max_line_chars: int | None = Field(None, ge=1, le=1_000_000, description="Drop lines with more characters.")
    deduplicate: bool = Field(default=False, description="Drop documents whose text came before, by a 128-bit hash.")

    @model_validator(mode="after")
    def _some_length_passes(self) -> Self:
        if self.max_line_chars is not None and self.max_line_chars < self.min_line_chars:
            raise ValueError(f"no line is at least {self.min_line_chars} and at most {self.max_line_chars} long")
        return self
