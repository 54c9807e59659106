"""Ids -> text as it becomes certain: never half a character, never part of a stop text."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Feeds on bytes of tokens, gives text that is final."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stops
        self._held = ""
        self.stopped_by: str | None = None

    def feed(self, data: bytes) -> str:
        """Take the bytes of a token; give the text that nothing later can change."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """Give what was still held back, at the end of the sample."""
        if self.stopped_by is not None:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        text, self._held = text + ("" if self.stopped_by else self._held), ""
        return text

    def _release(self, text: str) -> str:
        pending = self._held + text
        # The stop that is complete first wins, so that token borders leave no trace.
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := pending.find(stop)) >= 0]
        if found:
            _, start, self.stopped_by = min(found)
            self._held = ""
            return pending[:start]
        held = self._unsure_tail(pending)
        self._held = pending[len(pending) - held :]
        return pending[: len(pending) - held]

    def _unsure_tail(self, text: str) -> int:
        """Length of the longest end of `text` that could still become a stop text."""
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:size])
            ),
            default=0,
        )
