"""Finished units and shards -> dataset.json."""

from collections.abc import Sequence

from mypt import __version__
from mypt.core.data.prepare.workspace import Workspace
from mypt.durable import sha256_of
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo, SourceInfo, Split, TextCounts
from mypt.records.plan import UnitResult
from mypt.records.tokenizer import TOKENIZER_FILE

# A manifest is read whole at every start: a million names have no place in it.
_LISTED_SOURCES = 1000


def write_manifest(
    workspace: Workspace, results: Sequence[UnitResult], shards: dict[Split, list[ShardInfo]]
) -> DatasetManifest:
    """Write the tokenizer, then the manifest: what has one is whole."""
    plan, layout, tokenizer = workspace.plan, workspace.layout, workspace.tokenizer
    tokenizer.spec.write(workspace.dataset_dir / TOKENIZER_FILE)
    dropped = layout.duplicate_documents if plan.text.deduplicate else 0
    dropped_bytes = layout.duplicate_bytes if plan.text.deduplicate else 0
    counts = TextCounts(
        source_files=len(plan.sources),
        source_bytes=sum(source.size_bytes for source in plan.sources),
        documents=sum(result.train.documents + result.val.documents for result in results) - dropped,
        text_bytes=sum(result.text_bytes for result in results) - dropped_bytes,
        empty_documents=sum(result.empty_documents for result in results),
        duplicate_documents=layout.duplicate_documents,
        dropped_lines=sum(result.dropped_lines for result in results),
    )
    manifest = DatasetManifest(
        mypt_version=__version__,
        tokenizer_sha256=sha256_of(workspace.dataset_dir / TOKENIZER_FILE),
        vocab_size=tokenizer.vocab_size,
        end_of_text_id=tokenizer.end_of_text_id,
        encoder=tokenizer.encoder,
        split_by=layout.split_by,
        text=plan.text,
        counts=counts,
        tokens_per_shard=plan.tokens_per_shard,
        sources=tuple(
            SourceInfo(path=source.path, size_bytes=source.size_bytes) for source in plan.sources[:_LISTED_SOURCES]
        ),
        train=tuple(shards["train"]),
        val=tuple(shards["val"]),
    ).sealed()
    manifest.write(workspace.dataset_dir / DATASET_FILE)
    return manifest
