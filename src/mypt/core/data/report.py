"""What is in a dataset, from its manifest alone."""

from pathlib import Path

from mypt.records.dataset import read_dataset_manifest
from mypt.records.reports import DatasetReport
from mypt.records.tokenizer import TOKENIZER_FILE, read_tokenizer_spec


def report_dataset(directory: Path) -> DatasetReport:
    """Describe a prepared dataset.

    Raises:
        DataError: when it has no sound manifest.
    """
    manifest = read_dataset_manifest(directory)
    tokens = manifest.tokens("train") + manifest.tokens("val")
    return DatasetReport(
        path=str(directory),
        tokenizer=read_tokenizer_spec(directory / TOKENIZER_FILE).kind,
        train_tokens=manifest.tokens("train"),
        val_tokens=manifest.tokens("val"),
        documents=manifest.documents,
        source_bytes=manifest.source_bytes,
        bytes_per_token=manifest.counts.text_bytes / tokens if tokens else 0.0,
        size_bytes=sum(shard.tokens * shard.item_bytes for shard in (*manifest.train, *manifest.val)),
        manifest=manifest,
    )
