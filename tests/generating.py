"""What tests of generation share: tiny models, a tiny tokenizer that ends texts, and the plain way to read a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mypt.core.device import Device, choose_device
from mypt.core.generate.sampler import candidates
from mypt.core.generate.stream import generate
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.char import CharTokenizer
from mypt.events import Generated
from mypt.records.model import FamilyName, ModelConfig
from mypt.records.sampling import SamplingConfig
from mypt.records.tokenizer import CharSpec
from support import stirred

CPU = choose_device("cpu")
BLOCK_SIZE = 8

# Every family, and keys that heads share.
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2", "bias": True},
    "mypt-v1": {"family": "mypt-v1"},
    "modern": {"family": "modern"},
    "modern, grouped": {"family": "modern", "n_head": 4, "n_kv_head": 2},
    "modern, one key": {"family": "modern", "n_head": 4, "n_kv_head": 1},
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


class Letters(CharTokenizer):
    """A few letters; the first one stands for end-of-text."""

    end_of_text_id: int | None = 0

    def __init__(self, letters: str) -> None:
        super().__init__(CharSpec(chars=tuple(letters)))

    def decode_bytes(self, token_id: int) -> bytes:
        return b"" if token_id == 0 else super().decode_bytes(token_id)


def plain_letters(letters: str) -> CharTokenizer:
    """A few letters, and no end-of-text."""
    return CharTokenizer(CharSpec(chars=tuple(letters)))


def a_model(vocab_size: int, family: FamilyName = "gpt2", *, size: float = 0.5, **changes: Any) -> GPT:
    """Two layers, 16 wide; the larger the weights, the clearer its choices."""
    torch.manual_seed(11)
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": BLOCK_SIZE}
    return stirred(GPT(ModelConfig(family=family, vocab_size=vocab_size, **(sizes | changes))), size)


def samples(
    gpt: GPT, tokenizer: Tokenizer, texts: Sequence[str], device: Device = CPU, **settings: object
) -> list[Generated]:
    """All samples of all prompts."""
    config = SamplingConfig.parse(settings, where="test")
    return [event for event in generate(gpt, tokenizer, texts, config, device) if isinstance(event, Generated)]


def read_plainly(gpt: GPT, text: Sequence[int], prompt_length: int) -> NDArray[np.float32]:
    """Logits after a text, without a cache: a full window is left for its newest part, as often as it fills."""
    window = gpt.config.block_size
    kept = window if gpt.config.traits.slides_by_one else max(1, window // 2)
    start = max(0, prompt_length - window)
    for length in range(prompt_length, len(text) + 1):
        if length - start > window:
            start = length - kept
    with torch.no_grad():
        return gpt(torch.tensor([list(text[start:])]))[0, -1].numpy()


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def penalized(
    scores: NDArray[Any], prompt: Sequence[int], new: Sequence[int], config: SamplingConfig
) -> NDArray[np.float64]:
    """The scores of the next token as the settings' words say, one id after the other."""
    text, changed = [*prompt, *new], scores.astype(np.float64)
    for token_id in range(len(scores)):
        if token_id in text:
            factor = config.repetition_penalty
            changed[token_id] = changed[token_id] / factor if changed[token_id] > 0 else changed[token_id] * factor
        if token_id in new:
            changed[token_id] -= config.frequency_penalty * list(new).count(token_id) + config.presence_penalty
        if config.no_repeat_ngram is not None and holds_twice([*text, token_id], config.no_repeat_ngram):
            changed[token_id] = -np.inf
    return changed


def holds_twice(text: Sequence[int], length: int) -> bool:
    """Whether the last so many tokens have been in a row before."""
    runs = [tuple(text[start : start + length]) for start in range(len(text) - length + 1)]
    return bool(runs) and runs[-1] in runs[:-1]


def distribution(logits: NDArray[np.float32], config: SamplingConfig) -> NDArray[np.float64]:
    """How likely each id is to be drawn, shape (V,)."""
    (found,), spread = candidates(logits[None], config), np.zeros(len(logits))
    spread[slice(None) if found.ids_K is None else found.ids_K] = found.probabilities
    return spread
