"""import-dataset: a manifest for shards that another program wrote. The shards stay where they are."""

import time
from collections.abc import Iterator
from pathlib import Path

from mypt import __version__
from mypt.core.data.foreign import Foreign, check_shards, find_foreign
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.find import find_tokenizer
from mypt.durable import make_directory, sha256_of
from mypt.errors import DataError, UsageError
from mypt.events import DatasetWritten, Event
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo
from mypt.records.tokenizer import TOKENIZER_FILE, TokenizerSpec, read_tokenizer_spec


def import_dataset(source: Path, out_dir: Path, tokenization: str | None = None) -> Iterator[Event]:
    """Check and hash another program's shards, and write a manifest that points at them.

    Args:
        source: a folder of shards, or one .bin file.
        out_dir: where dataset.json and tokenizer.json go; `source` itself is fine.
        tokenization: what made the ids, where the files do not say it.

    Raises:
        UsageError: when the tokenizer cannot be told.
        DataError: when the shards are damaged or hold ids beyond the tokenizer's, or `out_dir` is taken.
    """
    started_s = time.monotonic()
    foreign = find_foreign(source)
    if foreign is None:
        raise DataError(
            f"{source}: no shards of the original MyPT, nanoGPT or llm.c here",
            hint="Known are dataset_metadata.json and train/shard_00000.bin, train.bin, or NAME_train_000001.bin.",
        )
    spec = _spec(source, foreign, tokenization)
    _require_free(out_dir, spec)
    tokenizer = build_tokenizer(spec)
    checked = yield from check_shards(foreign.root, (*foreign.train, *foreign.val), tokenizer.vocab_size, hashed=True)
    if out_dir.resolve() != foreign.root.resolve():
        checked = [_absolute(shard, foreign.root) for shard in checked]
    train, val = checked[: len(foreign.train)], checked[len(foreign.train) :]
    manifest = _write_manifest(out_dir, tokenizer, train, val)
    yield DatasetWritten(
        path=str(out_dir),
        train_tokens=manifest.tokens("train"),
        val_tokens=manifest.tokens("val"),
        shards=len(checked),
        documents=None,
        source_bytes=sum(shard.byte_offset + shard.tokens * shard.item_bytes for shard in checked),
        elapsed_s=time.monotonic() - started_s,
    )


def _write_manifest(
    out_dir: Path, tokenizer: Tokenizer, train: list[ShardInfo], val: list[ShardInfo]
) -> DatasetManifest:
    """Write the tokenizer, then the manifest, in one step each: what has a manifest is whole.

    Raises:
        DataError: when they cannot be written.
    """
    try:
        make_directory(out_dir)
        tokenizer.spec.write(out_dir / TOKENIZER_FILE)
        manifest = DatasetManifest(
            mypt_version=__version__,
            tokenizer_sha256=sha256_of(out_dir / TOKENIZER_FILE),
            vocab_size=tokenizer.vocab_size,
            end_of_text_id=tokenizer.end_of_text_id,
            split_by="given",
            train=tuple(train),
            val=tuple(val),
        ).sealed()
        manifest.write(out_dir / DATASET_FILE)
    except OSError as problem:
        raise DataError(f"{out_dir}: cannot write the manifest ({problem.strerror or problem})") from None
    return manifest


def _spec(source: Path, foreign: Foreign, tokenization: str | None) -> TokenizerSpec:
    """The tokenizer that the files name, or else the one that is given."""
    if tokenization is None:
        if foreign.spec is None:
            raise UsageError(
                f"{source}: these shards of {foreign.program} do not say which tokenizer made them",
                hint="Give it: --tokenization gpt2, byte, or a tokenizer file.",
            )
        return foreign.spec
    if foreign.is_certain:
        raise UsageError(f"--tokenization {tokenization}: the files of {source} name their tokenizer themselves")
    if tokenization == "char":
        raise UsageError(
            "--tokenization char: the ids alone do not tell their characters", hint="Give a tokenizer file."
        )
    return find_tokenizer(tokenization)


def _require_free(out_dir: Path, spec: TokenizerSpec) -> None:
    """Refuse a place that holds a dataset, or the tokenizer of something else."""
    if out_dir.exists() and not out_dir.is_dir():
        raise DataError(f"{out_dir}: already there, and no folder")
    if (out_dir / DATASET_FILE).exists():
        raise DataError(
            f"{out_dir}: already holds a {DATASET_FILE}; nothing was changed", hint="Choose another --out-dir."
        )
    tokenizer_path = out_dir / TOKENIZER_FILE
    if tokenizer_path.exists() and read_tokenizer_spec(tokenizer_path) != spec:
        raise DataError(
            f"{tokenizer_path}: already there, and another tokenizer; nothing was changed",
            hint="Choose another --out-dir.",
        )


def _absolute(shard: ShardInfo, root: Path) -> ShardInfo:
    return shard.model_copy(update={"path": (root / shard.path).resolve().as_posix()})
