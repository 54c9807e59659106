"""Datasets on disk -> Corpus. Reads manifests and sizes, no tokens."""

from collections.abc import Generator, Sequence
from pathlib import Path

from mypt.core.data.splits import Corpus
from mypt.core.data.stream import FileShard, TokenStream
from mypt.core.tokens.build import build_tokenizer
from mypt.durable import sha256_of
from mypt.errors import DataError
from mypt.events import Event
from mypt.records.dataset import DatasetManifest, Split, read_dataset_manifest
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec, read_tokenizer_spec


def open_datasets(choices: Sequence[str], spec: TokenizerSpec | None = None) -> Generator[Event, None, Corpus]:
    """Open the datasets a run is told to train on.

    Raises:
        DataError: when one is damaged or belongs to another tokenizer than `spec`.
    """
    yield from ()
    return open_dataset(Path(choices[0]), spec)


def open_dataset(directory: Path, spec: TokenizerSpec | None = None) -> Corpus:
    """Open a prepared dataset by memory map. Reads its manifest, no tokens.

    Raises:
        DataError: when a shard is missing or has another size than the manifest says, or the
            dataset was made with another tokenizer than `spec`.
    """
    manifest = read_dataset_manifest(directory)
    tokenizer_path = directory / TOKENIZER_FILE
    found = read_tokenizer_spec(tokenizer_path)
    if sha256_of(tokenizer_path) != manifest.tokenizer_sha256:
        raise DataError(f"{tokenizer_path}: changed since the dataset was made")
    if spec is not None and found != spec:
        raise DataError(
            f"{directory}: its tokens are '{found.kind}' tokens of another table than the model's '{spec.kind}'",
            hint="Prepare the text again with the model's tokenizer, or train a new model.",
        )
    splits: dict[Split, TokenStream] = {
        split: TokenStream(_open_shards(directory, manifest, split)) for split in ("train", "val")
    }
    return Corpus(build_tokenizer(found), splits["train"], splits["val"], manifest.checksum)


def _open_shards(directory: Path, manifest: DatasetManifest, split: Split) -> list[FileShard]:
    shards = []
    for info in manifest.shards(split):
        path = directory / info.path
        expected = info.byte_offset + info.tokens * info.item_bytes
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found:,} bytes, the manifest says {expected:,}"
            raise DataError(f"{path}: this shard {state}", hint="Make the dataset again: mypt prepare-dataset")
        shards.append(FileShard(path, info))
    return shards
