"""What must hold before a table from elsewhere is used: checked once, when it is made or imported.

1. Merging by the order of ranks does what the source's own merges do (`require_merges`).
2. The pattern keeps all text, and files may be cut where a letter or digit is followed by a space or
   newline (`require_sound_pattern`).
3. Its library, where there is one, gives the same ids (`require_same_ids`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import regex

from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.battery import BATTERY
from mypt.errors import DataError

# GPT-2's longest has 128 bytes. Looking for the merges of a piece takes the square of its length.
_LONGEST_PIECE_BYTES = 2**10
_PATIENCE_S = 5
_CUT = re.compile(r"[^\W_](?=[ \n])")


def require_merges(pieces: Sequence[bytes], merges: Mapping[bytes, Sequence[tuple[bytes, ...]]]) -> None:
    """Check that merging by rank ends each piece with one of the merges its source lists for it.

    Then both always agree: before a text's bytes become the piece, nothing reached over its
    borders, so the text's own merges were those of the piece alone.

    Args:
        pieces: all pieces in rank order.
        merges: the pairs that the source joins to each piece of more than one byte.

    Raises:
        DataError: naming a piece that comes about in another way.
    """
    for piece, parts in last_merges(pieces):
        if parts not in merges.get(piece, ()):
            raise DataError(f"the piece {piece!r} is not what merging in the order of ids makes")


def require_closed(pieces: Sequence[bytes]) -> None:
    """Check that merging by rank makes every piece: some libraries take that for granted.

    Raises:
        DataError: naming a piece that its own bytes never become.
    """
    for piece, parts in last_merges(pieces):
        if len(parts) > 2:  # noqa: PLR2004 - the pair whose merge is the piece
            raise DataError(f"no merge makes the piece {piece!r} of its bytes")


def require_sound_pattern(pattern: str) -> None:
    """Check that a pattern keeps all text, and that texts cut where files are cut give the same words.

    Raises:
        DataError: naming a text where that fails.
    """
    for text in BATTERY:
        whole = _words(pattern, text)
        if "".join(whole) != text:
            raise DataError(f"the tokenizer's pattern leaves out some of {text[:60]!r}")
        for found in _CUT.finditer(text):
            cut = found.end()
            if _words(pattern, text[:cut]) + _words(pattern, text[cut:]) != whole:
                raise DataError(
                    f"the tokenizer's pattern joins words over spaces ({text[max(0, cut - 20) : cut + 20]!r}); "
                    "text of any size could not be read piece by piece"
                )


def require_same_ids(tokenizer: Tokenizer, other: Callable[[str], list[int]], texts: Iterable[str]) -> None:
    """Check that our ids are those of the library that made or reads the table.

    Args:
        tokenizer: ours.
        other: text -> ids by the other library.
        texts: what to compare on, beside the battery of odd texts.

    Raises:
        DataError: naming a text with other ids.
    """
    for text in (*BATTERY, *texts):
        if tokenizer.encode(text).tolist() != other(text):
            raise DataError(f"its own library gives other ids than {tokenizer.encoder} for {text[:60]!r}")


def _words(pattern: str, text: str) -> list[str]:
    try:
        return [found[0] for found in regex.finditer(pattern, text, timeout=_PATIENCE_S)]
    except TimeoutError:
        raise DataError(f"the tokenizer's pattern takes for ever to cut {text[:60]!r}") from None


def last_merges(pieces: Sequence[bytes]) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    """Each piece of several bytes, and the parts that its last merge by rank joins.

    Raises:
        DataError: naming a piece that is too long to be looked at.
    """
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    for piece in pieces:
        if len(piece) > _LONGEST_PIECE_BYTES:
            raise DataError(f"the piece {piece[:20]!r} … has {len(piece):,} bytes (allowed: {_LONGEST_PIECE_BYTES:,})")
        if len(piece) > 1:
            yield piece, _last_parts(piece, ranks)


def _last_parts(piece: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """Merge the bytes of a piece by rank until two parts are left, or nothing merges any more."""
    parts = [piece[index : index + 1] for index in range(len(piece))]
    while len(parts) > 2:  # noqa: PLR2004 - the pair whose merge is the piece
        joined = [ranks.get(first + second, len(ranks)) for first, second in pairwise(parts)]
        best = min(joined)
        if best == len(ranks):
            break
        index = joined.index(best)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return tuple(parts)
