"""Prompts -> ids a model can start from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mypt.core.tokens.base import Tokenizer
from mypt.errors import DataError
from mypt.records.sampling import SamplingConfig


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a generation."""

    number: int
    """Its place among the prompts, from 0."""
    text: str
    """As the user gave it."""
    ids: tuple[int, ...]
    """What the model reads: with what the mode puts around it, and never empty."""


def parse_prompts(text: str, *, where: str) -> list[str]:
    """The prompts of a file: one in each line that is not blank; or JSON lines, with the prompt under "prompt".

    Raises:
        DataError: naming the line that is no such object; or when there is no prompt.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{where}: holds no prompts", hint="One prompt in each line.")
    if not any(_is_json(line) for _, line in lines):
        return [line.removesuffix("\r") for _, line in lines]
    return [_prompt_of(line, f"{where}, line {number}") for number, line in lines]


def _is_json(line: str) -> bool:
    """Whether a line is an object with a prompt. If one is, all have to be."""
    try:
        return "prompt" in json.loads(line) if line.lstrip().startswith("{") else False
    except (ValueError, RecursionError):
        return False


def _prompt_of(line: str, where: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError):
        prompt = None
    if not isinstance(prompt, str):
        raise DataError(f'{where}: no JSON object with a text under "prompt"', hint="As in the other lines.")
    return prompt


def read_prompts(tokenizer: Tokenizer, texts: Sequence[str], config: SamplingConfig) -> list[Prompt]:
    """Encode all prompts, before the first token is written.

    Raises:
        DataError: for unknown characters, unless they are to be skipped.
    """
    prompts = []
    for number, text in enumerate(texts):
        try:
            ids = encode_prompt(tokenizer, config.prompt_for(text), config)
        except DataError as problem:
            if len(texts) == 1:
                raise
            raise DataError(f"prompt {number + 1}: {problem.message}", hint=problem.hint) from None
        prompts.append(Prompt(number, text, tuple(ids)))
    return prompts


def longest_text(prompts: Sequence[Prompt], config: SamplingConfig) -> int:
    """Tokens of the longest text there can be."""
    return max((len(prompt.ids) for prompt in prompts), default=0) + config.max_new_tokens


def encode_prompt(tokenizer: Tokenizer, text: str, config: SamplingConfig) -> list[int]:
    """The ids the model starts from; an empty prompt is end-of-text, or a line break.

    Raises:
        DataError: for unknown characters, unless they are to be skipped.
    """
    ids = (tokenizer.encode_known if config.unknown == "skip" else tokenizer.encode)(text).tolist()
    if ids:
        return ids
    if tokenizer.end_of_text_id is not None:
        return [tokenizer.end_of_text_id]
    return tokenizer.encode_known("\n").tolist() or [0]
