"""Files of byte-pair tables -> pieces in rank order. Pure parsing; what is broken raises ValueError."""

import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* +[0-9]+ *")

Merges = dict[bytes, list[tuple[bytes, bytes]]]
"""The pairs that are joined to each piece."""


@dataclass(frozen=True, slots=True)
class MergeTable:
    """Pieces in rank order, and the merges that make them where the file tells."""

    pieces: tuple[bytes, ...]
    merges: Merges | None


def parse_table(data: bytes) -> MergeTable:
    """Read tiktoken's 'base64 rank' lines, or the merges of vocab.bpe and merges.txt.

    Raises:
        ValueError: when it is neither.
    """
    lines = data.splitlines()
    lines = list(filter(None, lines[1:] if data.startswith(b"#version") else lines))
    if not lines:
        raise ValueError("the file is empty")
    if not _RANK_LINE.fullmatch(lines[0]):
        return _table_of_merges(line.decode("utf-8") for line in lines)
    ranks = {b64decode(piece): int(rank) for piece, rank in map(bytes.split, lines)}
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError("its ranks are not 0, 1, 2, …")
    return MergeTable(tuple(sorted(ranks, key=ranks.__getitem__)), None)


def _table_of_merges(lines: Iterable[str]) -> MergeTable:
    """256 bytes in GPT-2's order, then one piece per line such as 'Ġ the'."""
    merges: Merges = {bytes([byte]): [] for byte in BYTE_ORDER}
    for line in lines:
        first, second = map(bytes_of, line.split(" "))
        if first not in merges or second not in merges or first + second in merges:
            raise ValueError(f"the merge {line!r} does not join two pieces into a new one")
        merges[first + second] = [(first, second)]
    return MergeTable(tuple(merges), merges)


def bytes_of(written: str) -> bytes:
    """The bytes of a piece as GPT-2's files write it.

    Raises:
        ValueError: for a character that stands for no byte.
    """
    try:
        return written.translate(_BYTES_OF_CODES).encode("latin-1")
    except UnicodeEncodeError as problem:
        raise ValueError(f"{written!r} is no piece: {written[problem.start]!r} stands for no byte") from None


def written(piece: bytes) -> str:
    """A piece as GPT-2's files write it: each byte as a printable character."""
    return piece.decode("latin-1").translate(_CODES_OF_BYTES)


def _printable_bytes() -> list[int]:
    return [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def _byte_order(printable: Sequence[int]) -> list[int]:
    return [*printable, *(byte for byte in range(256) if byte not in printable)]


BYTE_ORDER: tuple[int, ...] = tuple(_byte_order(_printable_bytes()))
"""Rank of each single byte in GPT-2's table: the printable ones first."""

# GPT-2 wrote each byte as a printable character: printable ones as themselves, others from 256 on.
_CODES_OF_BYTES = {
    byte: byte if index < len(_printable_bytes()) else 256 + index - len(_printable_bytes())
    for index, byte in enumerate(BYTE_ORDER)
}
# The rest of the first 256 stands for nothing, and goes where latin-1 does not follow.
_BYTES_OF_CODES = dict.fromkeys(range(256), 0xFFFF) | {code: byte for byte, code in _CODES_OF_BYTES.items()}
