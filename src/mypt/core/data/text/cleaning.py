"""Opt-in changes to the text, in bounded memory: normalisation, and lines dropped for their length."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from mypt.core.data.text.formats import Fragment
from mypt.core.data.text.spans import Tally
from mypt.records.text import Normalization, TextConfig

_SPACES = re.compile(r"[^\S\n]+")

# Fragments end before white space, where none of these looks across.
_CHANGES: dict[Normalization, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "lowercase": str.lower,
    "spaces": lambda text: _SPACES.sub(" ", text),
}


def clean(fragments: Iterator[Fragment], config: TextConfig, tally: Tally) -> Iterator[Fragment]:
    """Apply what the config asks for; by default the text as it is."""
    for change in config.normalize:
        fragments = _changed(fragments, _CHANGES[change])
    if config.min_line_chars or config.max_line_chars is not None:
        fragments = _filtered(fragments, _Lines(config.min_line_chars, config.max_line_chars, tally))
    return fragments


def _changed(fragments: Iterator[Fragment], change: Callable[[str], str]) -> Iterator[Fragment]:
    for text, ends in fragments:
        yield change(text), ends


def _filtered(fragments: Iterator[Fragment], lines: "_Lines") -> Iterator[Fragment]:
    for text, ends in fragments:
        yield lines.feed(text) + (lines.finish() if ends else ""), ends
    # Spans of one document are cut after a line: nothing is held back at their ends but a whole line.
    rest = lines.finish()
    if rest:
        yield rest, False


class _Lines:
    """Passes lines of allowed length on; never holds more of a line than is needed to judge it."""

    def __init__(self, least: int, most: int | None, tally: Tally) -> None:
        self._least = least
        self._most = most
        self._tally = tally
        self._held: list[str] = []
        self._chars = 0
        self._last = ""

    def feed(self, text: str) -> str:
        """Take text; give what is decided of it."""
        *whole, last = text.split("\n")
        kept = [self._end_line(line, "\n") for line in whole]
        return "".join([*kept, self._go_on(last)])

    def finish(self) -> str:
        """The last line, which no line feed ends."""
        return self._end_line("", "") if self._chars else ""

    def _go_on(self, text: str) -> str:
        self._chars += len(text)
        self._last = text[-1:] or self._last
        # One more than asked for: the last character may prove to be half of a line's end.
        if self._most is not None and self._chars > self._most + 1:
            self._held.clear()
            return ""
        self._held.append(text)
        return self._release() if self._most is None and self._chars > self._least else ""

    def _end_line(self, text: str, end: str) -> str:
        decided = self._go_on(text)
        chars = self._chars - (self._last == "\r")
        is_kept = self._least <= chars and (self._most is None or chars <= self._most)
        self._chars, self._last = 0, ""
        if is_kept:
            return decided + self._release() + end
        self._held.clear()
        self._tally.dropped_lines += 1
        return ""

    def _release(self) -> str:
        text = "".join(self._held)
        self._held.clear()
        return text
