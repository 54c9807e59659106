"""Prompts -> ids a model can start from, and what is to be told of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mypt.core.tokens.base import Tokenizer
from mypt.errors import DataError
from mypt.events import Event, Warned
from mypt.records.sampling import QA_PROMPT, SamplingConfig
from mypt.units import several


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a generation."""

    number: int
    """Its place among the prompts, from 0."""
    text: str
    """As the user gave it."""
    ids: tuple[int, ...]
    """What the model reads: with what the mode puts around it, and never empty."""
    left_out: int = 0
    """Characters that the model does not know."""

    @property
    def mark(self) -> int:
        """A hash of the ids, by which each prompt has random numbers of its own."""
        ids = np.array(self.ids, dtype="<i8").tobytes()
        return int.from_bytes(hashlib.blake2b(ids, digest_size=8).digest(), "little")


def parse_prompts(text: str, *, where: str) -> list[str]:
    """The prompts of a file: one in each line that is not blank; or JSON lines, with the prompt under "prompt".

    Raises:
        DataError: naming the line that is no such object; or when there is no prompt.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{where}: holds no prompts", hint="One prompt in each line.")
    first = next((number for number, line in lines if _is_json(line)), None)
    if first is None:
        return [line.removesuffix("\r") for _, line in lines]
    return [_prompt_of(line, f"{where}, line {number}", first) for number, line in lines]


def _is_json(line: str) -> bool:
    """Whether a line is an object with a prompt. If one is, all have to be."""
    try:
        return "prompt" in json.loads(line) if line.lstrip().startswith("{") else False
    except (ValueError, RecursionError):
        return False


def _prompt_of(line: str, where: str, first: int) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError):
        prompt = None
    if not isinstance(prompt, str):
        hint = f"Line {first} has a prompt: where one line has, all have to."
        raise DataError(f'{where}: no JSON object with a text under "prompt"', hint=hint)
    return prompt


def read_prompts(tokenizer: Tokenizer, texts: Sequence[str], config: SamplingConfig) -> list[Prompt]:
    """Encode all prompts, before the first token is written.

    Raises:
        DataError: for unknown characters, unless they are to be skipped.
    """
    prompts = []
    for number, text in enumerate(texts):
        whole = config.prompt_for(text)
        try:
            ids = encode_prompt(tokenizer, whole, config)
        except DataError as problem:
            which = f"prompt {number + 1}: " if len(texts) > 1 else ""
            around = f"Mode qa puts a prompt into {QA_PROMPT!r}. " if config.mode == "qa" else ""
            raise DataError(which + problem.message, hint=around + problem.hint) from None
        may_skip = config.unknown == "skip" and tokenizer.spec.kind == "char"
        left_out = len(whole) - len(tokenizer.encode_known(whole)) if may_skip else 0
        prompts.append(Prompt(number, text, tuple(ids), left_out))
    return prompts


def told_of(prompts: Sequence[Prompt], config: SamplingConfig, block_size: int) -> Iterator[Event]:
    """What is not read of the prompts: unknown characters, and what is before the window."""
    if (left_out := sum(prompt.left_out for prompt in prompts)) and config.mode != "chat":
        yield Warned(f"left out: {several(left_out, 'character')} that the model does not know")
    cut = [prompt for prompt in prompts if len(prompt.ids) > block_size]
    if cut:
        one = "the conversation" if config.mode == "chat" else "the prompt"
        which = one if len(prompts) == 1 else f"prompt {cut[0].number + 1}"
        others = f" (and {len(cut) - 1:,} more are too long)" if len(cut) > 1 else ""
        yield Warned(f"{which} has {len(cut[0].ids)} tokens{others}; only the last {block_size} fit the model's window")


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
