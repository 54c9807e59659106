"""Datasets on disk -> Corpus. Reads manifests and sizes; tokens only where no manifest vouches for them."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from mypt.core.data.choices import read_choices, shares
from mypt.core.data.cold import unpack_dataset
from mypt.core.data.files import OpenFiles
from mypt.core.data.foreign import Foreign, check_shards, find_foreign
from mypt.core.data.shards import FileShard
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import Source, TokenStream
from mypt.durable import sha256_of
from mypt.errors import DataError
from mypt.events import Event, Noted, Warned
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo, Split, read_dataset_manifest
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec, read_tokenizer_spec


@dataclass(frozen=True, slots=True)
class _Dataset:
    """One dataset whose files are there and have their sizes."""

    path: Path
    root: Path
    """What the shards' paths are relative to."""
    spec: TokenizerSpec
    train: tuple[ShardInfo, ...]
    val: tuple[ShardInfo, ...]
    fingerprint: str
    foreign: Foreign | None = None

    def shards(self, split: Split) -> tuple[ShardInfo, ...]:
        return self.train if split == "train" else self.val

    def tokens(self, split: Split) -> int:
        return sum(shard.tokens for shard in self.shards(split))


def open_datasets(texts: Sequence[str], spec: TokenizerSpec | None = None) -> Generator[Event, None, Corpus]:
    """Open the datasets a run is told to train on, and mix them where there are several.

    Args:
        texts: PATH or PATH:WEIGHT each; without weights every dataset counts by its tokens.
        spec: the tokenizer of an existing model; the datasets' own where it is None.

    Raises:
        UsageError: for weights that are none.
        DataError: when one is damaged, or they belong to different tokenizers.
    """
    choices = read_choices(texts)
    for choice in choices:
        yield from unpack_dataset(choice.path)
    datasets = [_find(choice.path) for choice in choices]
    spec = _common_spec(datasets, spec)
    for dataset in datasets:
        if dataset.foreign is not None:
            yield from _checked(dataset, dataset.foreign, spec)
    parts = shares(choices, [dataset.tokens("train") for dataset in datasets])
    if len(datasets) > 1:
        told = ", ".join(f"{dataset.path} {float(part):.2%}" for dataset, part in zip(datasets, parts, strict=True))
        yield Noted(f"a mixture: {told} of the samples")
    return _corpus(datasets, parts, spec)


def open_dataset(path: Path, spec: TokenizerSpec | None = None) -> Corpus:
    """Open one prepared dataset. Reads its manifest, no tokens.

    Raises:
        DataError: when a shard is missing or has another size than the manifest says, or the
            dataset was made with another tokenizer than `spec`.
    """
    dataset = _prepared(path)
    return _corpus([dataset], [Fraction(1)], _common_spec([dataset], spec))


def _find(path: Path) -> _Dataset:
    foreign = None if (path / DATASET_FILE).is_file() else find_foreign(path)
    if foreign is None:
        return _prepared(path)
    if foreign.spec is None:
        raise DataError(
            f"{path}: these shards of {foreign.program} do not say which tokenizer made them",
            hint=f"Say it: mypt import-dataset {path} --out-dir DIR --tokenization TOKENIZER",
        )
    content = foreign.spec.as_json() + "".join(shard.as_json() for shard in (*foreign.train, *foreign.val))
    fingerprint = sha256(content.encode()).hexdigest()
    return _Dataset(path, foreign.root, foreign.spec, foreign.train, foreign.val, fingerprint, foreign)


def _prepared(path: Path) -> _Dataset:
    manifest = read_dataset_manifest(path)
    tokenizer_path = path / TOKENIZER_FILE
    spec = read_tokenizer_spec(tokenizer_path)
    if sha256_of(tokenizer_path) != manifest.tokenizer_sha256:
        raise DataError(f"{tokenizer_path}: changed since the dataset was made")
    for shard in (*manifest.train, *manifest.val):
        _require_size(path / shard.path, shard, manifest)
    return _Dataset(path, path, spec, manifest.train, manifest.val, manifest.checksum)


def _require_size(path: Path, shard: ShardInfo, manifest: DatasetManifest) -> None:
    expected = shard.byte_offset + shard.tokens * shard.item_bytes
    try:
        found = path.stat().st_size
    except OSError:
        found = None
    if found != expected:
        state = "is missing" if found is None else f"has {found:,} bytes, the manifest says {expected:,}"
        maker = "import-dataset" if manifest.split_by == "given" else "prepare-dataset"
        raise DataError(f"{path}: this shard {state}", hint=f"Make the dataset again: mypt {maker}")


def _common_spec(datasets: Sequence[_Dataset], spec: TokenizerSpec | None) -> TokenizerSpec:
    """The one tokenizer of all datasets, and of the model where there is one."""
    first = datasets[0]
    for dataset in datasets:
        if spec is not None and dataset.spec != spec:
            raise DataError(
                f"{dataset.path}: its tokens are '{dataset.spec.kind}' tokens of another table than the model's "
                f"'{spec.kind}'",
                hint="Prepare the text again with the model's tokenizer, or train a new model.",
            )
        if dataset.spec != first.spec:
            raise DataError(
                f"{dataset.path}: its tokens are '{dataset.spec.kind}' tokens of another table than the "
                f"'{first.spec.kind}' tokens of {first.path}",
                hint="Only datasets of one tokenizer can be mixed: prepare one of them again.",
            )
    return first.spec


def _checked(dataset: _Dataset, foreign: Foreign, spec: TokenizerSpec) -> Generator[Event]:
    yield Warned(
        f"{dataset.path}: shards of {foreign.program}, without hashes: their ids are checked now and at every start. "
        f"Once and for all: mypt import-dataset {dataset.path} --out-dir DIR"
    )
    yield from check_shards(dataset.root, (*dataset.train, *dataset.val), spec.vocab_size, hashed=False)


def _corpus(datasets: Sequence[_Dataset], parts: Sequence[Fraction], spec: TokenizerSpec) -> Corpus:
    train, val = (_stream(datasets, parts, split, spec.vocab_size) for split in ("train", "val"))
    fingerprint = datasets[0].fingerprint
    if len(datasets) > 1:
        mixed = [f"{dataset.fingerprint} {part}\n" for dataset, part in zip(datasets, parts, strict=True)]
        fingerprint = sha256("".join(mixed).encode()).hexdigest()
    return Corpus(spec, train, val, fingerprint)


def _stream(datasets: Sequence[_Dataset], parts: Sequence[Fraction], split: Split, vocab_size: int) -> TokenStream:
    """All datasets end to end; those without tokens in this split leave their part to the others."""
    files = OpenFiles()
    shards: list[FileShard] = []
    first = 0
    mixed = [(dataset, part) for dataset, part in zip(datasets, parts, strict=True) if dataset.tokens(split)]
    total = sum(part for _, part in mixed)
    sources: list[Source] = []
    for dataset, part in mixed:
        own = [FileShard(dataset.root / info.path, info, files) for info in dataset.shards(split)]
        for shard in own:
            files.remember(shard.path)
        shards += own
        sources.append(Source(str(dataset.path), first, dataset.tokens(split), part / total))
        first += dataset.tokens(split)
    return TokenStream(shards, sources, vocab_size=vocab_size, files=files)
