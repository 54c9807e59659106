"""Shards that other programs wrote, used where they lie.

the original MyPT   dataset_metadata.json, tokenizer_state.json, train/ and val/: headerless uint32
nanoGPT             train.bin, val.bin: headerless uint16, GPT-2's ids
llm.c               *train*.bin, *val*.bin: 256 int32 of header (magic, version, tokens), then ids
"""

import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mypt.core.data.stream import beyond_vocabulary
from mypt.core.tokens.base import Ids, stored_dtype
from mypt.errors import DataError
from mypt.events import ShardsChecked
from mypt.records.dataset import ShardInfo, TokenType
from mypt.records.legacy import LegacyDataset, LegacyTokenizer
from mypt.records.tokenizer import Gpt2Spec, TokenizerSpec

_HEADER_BYTES = 256 * 4
_IDS_AT_ONCE = 2**21
_PROGRESS_S = 0.2


class _Header(NamedTuple):
    """What an llm.c magic number means."""

    version: int
    dtype: TokenType
    spec: TokenizerSpec | None


_LLMC_HEADERS = {20240520: _Header(1, "uint16", Gpt2Spec()), 20240801: _Header(7, "uint32", None)}


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another program's dataset: its shards, and its tokenizer as far as that can be told."""

    program: str
    root: Path
    """What the shards' paths are relative to."""
    train: tuple[ShardInfo, ...]
    val: tuple[ShardInfo, ...]
    spec: TokenizerSpec | None
    """None: the files do not say."""
    is_certain: bool = False
    """Whether the files name the tokenizer, so that no other one can be meant."""


def find_foreign(path: Path) -> Foreign | None:
    """Recognise a folder of shards, or one .bin file of them; None where it is none.

    Raises:
        DataError: naming the shard that is truncated, has a wrong header, or is missing.
    """
    try:
        return _recognise(path)
    except OSError as problem:
        raise DataError(f"{problem.filename or path}: cannot read it ({problem.strerror or problem})") from None


def _recognise(path: Path) -> Foreign | None:
    if path.is_file() and path.suffix == ".bin":
        return _llmc(path.parent, [path], []) or _nanogpt(path.parent, [path], [])
    if (path / "dataset_metadata.json").is_file():
        return _original(path)
    train, val = sorted(path.glob("*train*.bin")), sorted(path.glob("*val*.bin"))
    found = _llmc(path, train, val) if train else None
    if found is None and (path / "train.bin").is_file():
        return _nanogpt(path, [path / "train.bin"], [each for each in val if each.name == "val.bin"])
    return found


def check_shards(
    root: Path, shards: Iterable[ShardInfo], vocab_size: int, *, hashed: bool
) -> Generator[ShardsChecked, None, list[ShardInfo]]:
    """Read all ids in bounded memory, telling progress now and then.

    Args:
        root: what relative paths are relative to.
        shards: what to read.
        vocab_size: every id must be below.
        hashed: whether the files are hashed too.

    Returns:
        The shards, with their hashes.

    Raises:
        DataError: naming the shard, when an id is beyond the vocabulary or it cannot be read.
    """
    shards = list(shards)
    total_bytes = sum(shard.byte_offset + shard.tokens * shard.item_bytes for shard in shards)
    started_s = told_s = time.monotonic()
    done_bytes = tokens = 0
    checked = []
    for shard in shards:
        digest = sha256()
        for header, ids, offset in _pieces(root / shard.path, shard):
            if ids.size and ids.max() >= vocab_size:
                place = int(np.argmax(ids >= vocab_size))
                raise beyond_vocabulary(str(root / shard.path), int(ids[place]), offset + place, vocab_size)
            if hashed:
                digest.update(header)
                digest.update(ids.data)
            done_bytes, tokens = done_bytes + len(header) + ids.nbytes, tokens + ids.size
            if time.monotonic() - told_s >= _PROGRESS_S and done_bytes < total_bytes:
                told_s = time.monotonic()
                yield ShardsChecked(done_bytes, total_bytes, tokens, told_s - started_s)
        checked.append(shard.model_copy(update={"sha256": digest.hexdigest()}) if hashed else shard)
    yield ShardsChecked(total_bytes, total_bytes, tokens, time.monotonic() - started_s)
    return checked


def _pieces(path: Path, shard: ShardInfo) -> Generator[tuple[bytes, Ids, int]]:
    """The file in order: (header bytes, ids, number of the first id); the header comes with the first piece."""
    ids: Ids = np.empty(min(_IDS_AT_ONCE, shard.tokens), dtype=stored_dtype(shard.dtype))
    try:
        with path.open("rb", buffering=0) as file:
            header = file.read(shard.byte_offset)
            for offset in range(0, shard.tokens, _IDS_AT_ONCE):
                piece = ids[: shard.tokens - offset]
                if file.readinto(piece.data) != piece.nbytes:
                    raise DataError(f"{path}: this shard became shorter while it was read")
                yield header, piece, offset
                header = b""
    except OSError as problem:
        raise DataError(f"{path}: cannot read it ({problem.strerror or problem})") from None


def _original(root: Path) -> Foreign:
    about = root / "dataset_metadata.json"
    metadata = LegacyDataset.read(about, error=DataError)
    state = root / "tokenizer_state.json"
    spec = LegacyTokenizer.read(state, error=DataError).spec(str(state), DataError)
    train, val = (
        tuple(_headerless(root, path, "uint32") for path in sorted((root / split).glob("shard_*.bin")))
        for split in ("train", "val")
    )
    found = {"train_shards": len(train), "val_shards": len(val), "total_tokens": sum(s.tokens for s in (*train, *val))}
    for key, number in found.items():
        said = getattr(metadata, key)
        if said is not None and said != number:
            raise DataError(
                f"{root}: {key} is {number:,} here, {about.name} says {said:,}: a shard is missing or truncated"
            )
    return Foreign("the original MyPT", root, train, val, spec, is_certain=True)


def _nanogpt(root: Path, train: list[Path], val: list[Path]) -> Foreign:
    # A pickle says which characters the ids mean, and loading one may run anything.
    spec = None if (root / "meta.pkl").is_file() else Gpt2Spec()
    infos = [_headerless(root, path, "uint16") for path in (*train, *val)]
    return Foreign("nanoGPT", root, tuple(infos[: len(train)]), tuple(infos[len(train) :]), spec)


def _llmc(root: Path, train: list[Path], val: list[Path]) -> Foreign | None:
    """Shards with llm.c's header; None where the first has another beginning."""
    meaning = _LLMC_HEADERS.get(_int32(train[0])[0])
    if meaning is None:
        return None
    infos = [_with_header(root, path, meaning) for path in (*train, *val)]
    return Foreign("llm.c", root, tuple(infos[: len(train)]), tuple(infos[len(train) :]), meaning.spec)


def _headerless(root: Path, path: Path, dtype: TokenType) -> ShardInfo:
    size_bytes = path.stat().st_size
    shard = ShardInfo(path=path.relative_to(root).as_posix(), dtype=dtype, tokens=0)
    if size_bytes % shard.item_bytes:
        raise DataError(
            f"{path}: {size_bytes:,} bytes are no whole number of {dtype} ids, so this shard is truncated or damaged"
        )
    return shard.model_copy(update={"tokens": size_bytes // shard.item_bytes})


def _with_header(root: Path, path: Path, expected: _Header) -> ShardInfo:
    magic, version, tokens = _int32(path)
    if _LLMC_HEADERS.get(magic) != expected:
        raise DataError(f"{path}: its header (magic {magic}) is not that of the first shard")
    if version != expected.version:
        raise DataError(f"{path}: version {version} of llm.c's format is not known (known: {expected.version})")
    size_bytes = path.stat().st_size
    shard = ShardInfo(
        path=path.relative_to(root).as_posix(), byte_offset=_HEADER_BYTES, dtype=expected.dtype, tokens=max(tokens, 0)
    )
    expected_bytes = _HEADER_BYTES + shard.tokens * shard.item_bytes
    if size_bytes != expected_bytes:
        raise DataError(
            f"{path}: its header announces {tokens:,} tokens, which are {expected_bytes:,} bytes, "
            f"and it has {size_bytes:,}: truncated or damaged"
        )
    return shard


def _int32(path: Path) -> tuple[int, int, int]:
    """The first three numbers of a file, read as llm.c's header; zeros where it is too short for one."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return 0, 0, 0
    magic, version, tokens = np.frombuffer(header, dtype="<i4", count=3).tolist()
    return magic, version, tokens
