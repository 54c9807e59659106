"""Prompt -> token events: the model, its cache and the sampler at work."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from mypt.core.device import Device
from mypt.core.generate.sampler import sample
from mypt.core.generate.text import TextStream
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.seeds import mix
from mypt.core.tokens.base import Tokenizer
from mypt.events import Event, Generated, SampleStarted, Token, Warned
from mypt.records.sampling import SamplingConfig


def generate(model: GPT, tokenizer: Tokenizer, prompt: str, config: SamplingConfig, device: Device) -> Iterator[Event]:
    """Continue a prompt, num_samples times, telling each piece of text as it becomes certain.

    Past the window no position was ever learned: then the newest half of the window is read anew and
    generation goes on (mypt-v1 keeps the newest block_size tokens instead, as the original did).

    Raises:
        DataError: when the prompt has characters the tokenizer does not know.
    """
    prompt_ids = encode_prompt(tokenizer, config.prompt_for(prompt), config)
    block_size = model.config.block_size
    if len(prompt_ids) > block_size:
        yield Warned(f"the prompt has {len(prompt_ids)} tokens; only the last {block_size} fit the model's window")
    model.eval()
    for number in range(config.num_samples):
        yield SampleStarted(number, prompt)
        yield from _Sample(model, tokenizer, config, device, number).write(prompt, prompt_ids)


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


class _Sample:
    """One continuation in the making."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, config: SamplingConfig, device: Device, number: int) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._number = number
        self._decoder = Decoder(model, device)
        self._text = TextStream(config.stops)
        # Each sample has its own seed, so sample n is the same however many are drawn.
        self._chance = torch.Generator().manual_seed(mix(config.seed, number))
        self._stopped_by = "length"
        self._first_token_s = 0.0

    def write(self, prompt: str, prompt_ids: list[int]) -> Iterator[Event]:
        """Tell each token's text, then the whole."""
        started_s = time.monotonic()
        new_ids: list[int] = []
        text = ""
        for token_id in self._ids(prompt_ids):
            self._first_token_s = self._first_token_s or time.monotonic() - started_s
            new_ids.append(token_id)
            piece = self._text.feed(self._tokenizer.decode_bytes(token_id))
            text += piece
            yield Token(self._number, token_id, piece)
            if self._text.stopped_by is not None:
                self._stopped_by = "stop text"
                break
        rest = self._text.finish()
        if rest:
            yield Token(self._number, None, rest)
        after_first_s = time.monotonic() - started_s - self._first_token_s
        yield Generated(
            sample=self._number,
            prompt=prompt,
            text=text + rest,
            token_ids=tuple(new_ids),
            stopped_by=self._stopped_by,
            first_token_s=self._first_token_s,
            tokens_per_s=max(len(new_ids) - 1, 0) / after_first_s if after_first_s > 0 else 0.0,
        )

    def _ids(self, prompt_ids: list[int]) -> Iterator[int]:
        """New ids, one by one, until end-of-text or the limit."""
        context = list(prompt_ids)
        for _ in range(self._config.max_new_tokens):
            # Padded rows of the embedding are no tokens: only real ids take part.
            logits_V = self._decoder.next_logits(context)[: self._tokenizer.vocab_size]
            token_id = sample(logits_V, self._config, self._chance)
            if token_id == self._tokenizer.end_of_text_id:
                self._stopped_by = "end of text"
                return
            context.append(token_id)
            yield token_id


class Decoder:
    """Logits for a growing context, reading each token once while it fits the window."""

    def __init__(self, model: GPT, device: Device) -> None:
        self._model = model
        self._device = device
        self._window = model.config.block_size
        self._kept = self._window if model.config.traits.slides_by_one else max(1, self._window // 2)
        with torch.inference_mode():
            self._cache = KeyValueCache(model.config, 1, device.torch, torch.float32)
        self._start = 0
        """Index in the context of the first token in the cache."""

    @torch.inference_mode()
    def next_logits(self, context: list[int]) -> Tensor:
        """Logits of the token after `context`, shape (V,). `context` only ever grows.

        The window is refilled from the newest `kept` tokens once it is full.
        """
        if self._cache.length == 0:
            self._start = max(0, len(context) - self._window)
        elif len(context) - self._start > self._window:
            self._start = len(context) - self._kept
            self._cache.clear()
        unread = context[self._start + self._cache.length :]
        ids_BT = torch.tensor([unread], device=self._device.torch)
        hidden_BTC = self._model.hidden(ids_BT, self._cache)
        return self._model.logits(hidden_BTC[:, -1:])[0, -1].float()
