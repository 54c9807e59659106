"""Prompts -> events: many texts written side by side, and told one after the other.

    prompts -> samples, each in a row of the decoder while it is written -> their events, in order

A row whose text has ended takes the next one. What is drawn for a text depends on nothing but the seed, its prompt, its
number and the place in it, so a text is what it would be alone; but for scores that torch rounds otherwise among more.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence

from mypt.core.device import Device
from mypt.core.generate.beam import search
from mypt.core.generate.compiled import open_finder
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.prompt import Prompt, longest_text, read_prompts, told_of
from mypt.core.generate.sample import Sample
from mypt.core.generate.sampler import choose
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer
from mypt.events import Event
from mypt.records.sampling import SamplingConfig


def generate(
    model: GPT, tokenizer: Tokenizer, texts: Sequence[str], config: SamplingConfig, device: Device
) -> Generator[Event]:
    """Continue each prompt, num_samples times, telling each piece of text as it becomes certain.

    Raises:
        DataError: when a prompt has characters the tokenizer does not know.
    """
    prompts = read_prompts(tokenizer, texts, config)
    yield from told_of(prompts, config, model.config.block_size)
    model.eval()
    if config.beams > 1:
        yield from search(model, tokenizer, prompts, config, device)
    else:
        yield from _Writers(model, tokenizer, prompts, config, device).write()


class _Writers:
    """The samples in work, one in each row."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, prompts: Sequence[Prompt], config: SamplingConfig, device: Device
    ) -> None:
        self._waiting = (
            Sample(prompt, number, tokenizer, config) for prompt in prompts for number in range(config.num_samples)
        )
        self._rows = config.texts_at_once(len(prompts))
        self._decoder = Decoder(model, device, self._rows, longest_text(prompts, config))
        self._find = open_finder(model, device)
        self._config = config
        self._vocab_size = tokenizer.vocab_size
        self._active: list[Sample] = []
        self._untold: deque[Sample] = deque()

    def write(self) -> Iterator[Event]:
        """Write all samples; their events come sample by sample, the first one's at once."""
        self._fill()
        while self._active:
            self._step()
            for row in reversed(range(len(self._active))):
                if self._active[row].stopped_by:
                    self._free(row)
            self._fill()
            yield from self._told()

    def _fill(self) -> None:
        """Give free rows the next samples."""
        while len(self._active) < self._rows and (sample := next(self._waiting, None)) is not None:
            self._decoder.begin(len(self._active), sample.prompt.ids)
            self._active.append(sample)
            self._untold.append(sample)

    def _step(self) -> None:
        """Add a token to every text."""
        # Padded rows of the embedding are no tokens: only real ids take part.
        logits_BV = self._decoder.step([sample.text_ids for sample in self._active])[:, : self._vocab_size]
        own_BV = logits_BV.copy() if self._config.logprobs is not None else logits_BV
        for sample, logits_V in zip(self._active, logits_BV, strict=True):
            sample.penalize(logits_V)
        going = [row for row, sample in enumerate(self._active) if not sample.stopped_by]
        if not going:
            return
        allowed_BV = logits_BV if len(going) == len(self._active) else logits_BV[going]
        chances = [self._active[row].chance for row in going]
        chosen = choose(allowed_BV, self._config, chances, self._find)
        for row, token_id in zip(going, chosen, strict=True):
            self._active[row].take(token_id, own_BV[row])

    def _free(self, row: int) -> None:
        """Keep the rows in work together: the last one moves into the place of one that has ended."""
        last = self._active.pop()
        if row < len(self._active):
            self._decoder.move(len(self._active), row)
            self._active[row] = last

    def _told(self) -> Iterator[Event]:
        """The events of the first sample that is not wholly told; where it has ended, those of the next one too."""
        while self._untold:
            first = self._untold[0]
            while first.events:
                yield first.events.popleft()
            if not first.stopped_by:
                return
            self._untold.popleft()
