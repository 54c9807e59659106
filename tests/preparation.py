"""Words that the tests of datasets share: prepare text in this process, and read back what was written."""

import gzip
import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from numpy.typing import NDArray

from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.text.documents import read_documents
from mypt.core.data.text.sources import find_sources, with_parts
from mypt.core.data.text.spans import Tally
from mypt.core.data.text.units import cut_units
from mypt.core.tokens.build import build_tokenizer
from mypt.records.dataset import DatasetManifest, Split, read_dataset_manifest
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from mypt.records.text import TextConfig
from mypt.records.tokenizer import TOKENIZER_FILE, read_tokenizer_spec

SPLITS: tuple[Split, Split] = ("train", "val")
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def small_units(patch: pytest.MonkeyPatch, unit_bytes: int) -> None:
    """Cut small texts into many units."""
    patch.setattr("mypt.core.data.text.units._SMALLEST_BYTES", unit_bytes)
    patch.setattr("mypt.core.data.text.units._LARGEST_BYTES", unit_bytes)


def _no_flush(_handle: int) -> None:
    """What the content of files does not depend on, and takes most of the time."""


def careless_disk(patch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: for tests of what is written, not of what survives a power cut."""
    patch.setattr("mypt.durable.flush", _no_flush)


def prepared(config: DataConfig, out_dir: Path, tokens_per_shard: int = 10**6, workers: int = 1) -> DatasetManifest:
    """Prepare a dataset in this process (or its workers)."""
    list(prepare_dataset(config, out_dir, PrepareConfig(tokens_per_shard=tokens_per_shard, workers=workers)))
    return read_dataset_manifest(out_dir)


def shards_of(out_dir: Path, split: Split) -> list[NDArray[np.uint16 | np.uint32]]:
    """The ids of each shard."""
    shards = read_dataset_manifest(out_dir).shards(split)
    return [np.fromfile(out_dir / shard.path, dtype=f"<{shard.dtype[0]}{shard.item_bytes}") for shard in shards]


def ids_of(out_dir: Path, split: Split) -> list[int]:
    """All ids of a split."""
    return [token_id for shard in shards_of(out_dir, split) for token_id in shard.tolist()]


def ends_of(out_dir: Path, split: Split) -> list[int]:
    """Where documents end, counted from the first token of the split."""
    ends: list[int] = []
    before = 0
    for shard in read_dataset_manifest(out_dir).shards(split):
        index = np.fromfile((out_dir / shard.path).with_suffix(".idx"), dtype="<u8").tolist()
        ends += [before + end for end in index]
        before += shard.tokens
    return ends


def texts_of(out_dir: Path, split: Split) -> list[str]:
    """The documents of a split, decoded again."""
    tokenizer = build_tokenizer(read_tokenizer_spec(out_dir / TOKENIZER_FILE))
    ids, texts, start = ids_of(out_dir, split), list[str](), 0
    for end in ends_of(out_dir, split):
        texts.append(b"".join(tokenizer.decode_bytes(one) for one in ids[start:end]).decode())
        start = end
    return texts


def fingerprints(out_dir: Path) -> dict[str, str]:
    """The hash of every shard, index and tokenizer: equal where datasets are equal byte for byte."""
    files = sorted(path for path in out_dir.rglob("*") if path.is_file() and path.name != "dataset.json")
    return {path.relative_to(out_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_units(paths: Sequence[Path | str], config: TextConfig, unit_bytes: int) -> Iterator[tuple[list[str], Tally]]:
    """The documents' texts unit by unit, as readers of units see them; a part of one is a text too."""
    sources = [with_parts(source) for source in find_sources([str(path) for path in paths], config.text_format)]
    for unit in cut_units(sources, unit_bytes):
        tally = Tally()
        yield [piece.text for piece in read_documents(unit, sources, config, tally)], tally


def read_texts(paths: Sequence[Path | str], config: TextConfig, unit_bytes: int = 2**22) -> list[tuple[str, Split]]:
    """All documents with their sides, put together from units."""
    sources = [with_parts(source) for source in find_sources([str(path) for path in paths], config.text_format)]
    documents: list[tuple[str, Split]] = []
    held: list[str] = []
    sides: set[Split] = set()
    for unit in cut_units(sources, unit_bytes):
        for piece in read_documents(unit, sources, config, Tally()):
            held.append(piece.text)
            sides.add(piece.split)
            if piece.end is not None:
                assert len(sides) == 1, "one document, one side"
                documents.append(("".join(held), piece.split))
                held.clear()
                sides.clear()
    assert not held, "every document ends"
    return documents


def write_jsonl(path: Path, texts: Iterable[str], field: str = "text") -> Path:
    """One record a line."""
    path.write_text("".join(json.dumps({"id": n, field: text}) + "\n" for n, text in enumerate(texts)))
    return path


def write_parquet(path: Path, texts: Sequence[str], field: str = "text", rows_per_group: int = 2**20) -> Path:
    """One record a row."""
    pq.write_table(pa.table({field: list(texts), "id": range(len(texts))}), path, row_group_size=rows_per_group)
    return path
