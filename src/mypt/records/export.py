"""ExportConfig: in which files a model leaves; and what llama.cpp, in a process of its own, is asked about one."""

from typing import Literal

from pydantic import Field

from mypt.records.base import Record

ExportFormat = Literal["hf", "gguf"]


class ExportConfig(Record, frozen=True):
    """What an export is to be."""

    to: ExportFormat = Field("hf", description="hf: a folder for transformers and others; gguf: a file for llama.cpp.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Of the weights in it: fp32, bf16 or fp16.")


class Questions(Record, frozen=True):
    """What llama.cpp is asked about a file."""

    path: str
    context_tokens: int
    texts: tuple[str, ...] = Field(description="What are their tokens?")
    prompts: tuple[tuple[int, ...], ...] = Field(description="What comes next?")
    likeliest: int = Field(description="How many tokens are told after each prompt.")
    whole: int = Field(description="A token of whole characters: of an answer that ends inside of one nothing is told.")


class Piece(Record, frozen=True):
    """A token, and the bytes that it stands for."""

    token_id: int
    content: tuple[int, ...]


class Answers(Record, frozen=True):
    """What llama.cpp says."""

    tokens: tuple[tuple[Piece, ...], ...] = Field(description="Of each text.")
    logprobs: tuple[dict[int, float], ...] = Field(description="Of the likeliest tokens after each prompt, in nats.")
