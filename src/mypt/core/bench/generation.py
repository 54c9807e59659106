"""Generation as `mypt generate` does it, one sample at a time, with the model's first, random weights."""

import random
import time
from statistics import median

import torch

from mypt.core.device import choose_device
from mypt.core.generate.compiled import choose_reader, open_finder
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.sampler import choose
from mypt.core.model.gpt import GPT
from mypt.records.bench import GenerationFigures, Job
from mypt.records.sampling import SamplingConfig

_PROMPT_TOKENS = 16
_WARMUP_TOKENS = 8
_FEWEST_TOKENS = 2
_SEED = 1


def generation_figures(job: Job) -> GenerationFigures:
    """Write samples from a prompt of 16 tokens, each until the window is full, for some seconds."""
    writer = _Writer(job)
    writer.write(_WARMUP_TOKENS, float("inf"))
    firsts_s: list[float] = []
    tokens, seconds = 0, 0.0
    while not firsts_s or seconds < job.seconds:
        first_s, more, more_s = writer.write(job.config.model.block_size, job.seconds - seconds)
        firsts_s.append(first_s)
        tokens, seconds = tokens + more, seconds + more_s + first_s
    spent_s = seconds - sum(firsts_s)
    return GenerationFigures(tokens_per_s=tokens / spent_s if spent_s else 0.0, first_token_s=median(firsts_s))


class _Writer:
    """A model of random weights, and what chooses its tokens."""

    def __init__(self, job: Job) -> None:
        self._device = choose_reader(choose_device(job.config.training.device, "fp32"), "auto")
        torch.manual_seed(_SEED)
        self._model = GPT(job.config.model).to(self._device.torch).eval()
        self._settings = SamplingConfig()
        self._chance = random.Random(_SEED)  # noqa: S311 - no secret
        size = min(_PROMPT_TOKENS, max(1, job.config.model.block_size // 2))
        self._find = open_finder(self._model, self._device)
        self._prompt = torch.randint(job.config.model.vocab_size, (size,)).tolist()

    def write(self, window: int, seconds: float) -> tuple[float, int, float]:
        """Write one sample.

        Args:
            window: tokens with the prompt, at most.
            seconds: after which it ends, but not before its second token.

        Returns:
            Seconds until the first token, the number of tokens after it, and their seconds.
        """
        began_s = time.perf_counter()
        text = list(self._prompt)
        decoder = Decoder(self._model, self._device, 1, max(window, len(text) + _FEWEST_TOKENS))
        decoder.begin(0, text)
        self._add_token(decoder, text)
        first_s = time.perf_counter() - began_s
        tokens, spent_s = 0, 0.0
        while tokens == 0 or (len(text) < window and first_s + spent_s < seconds):
            self._add_token(decoder, text)
            tokens, spent_s = tokens + 1, time.perf_counter() - began_s - first_s
        return first_s, tokens, spent_s

    def _add_token(self, decoder: Decoder, text: list[int]) -> None:
        text += choose(decoder.step([text]), self._settings, [self._chance.random()], self._find)
