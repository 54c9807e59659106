"""inspect tells the truth about a dataset: counts, lengths, and documents one can read."""

import json
from pathlib import Path

import numpy as np

from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.report import report_dataset
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from support import Mypt, tale

TEXTS = [tale(1 + number % 9, seed=number) for number in range(200)] + ["twice\n", "twice\n", ""]


def prepared(tmp_path: Path, tokens_per_shard: int = 4000) -> Path:
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "tale.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    config = DataConfig(input_files=(str(path),), tokenization="byte")
    options = PrepareConfig(tokens_per_shard=tokens_per_shard, workers=1)
    list(prepare_dataset(config, tmp_path / "data", options))
    return tmp_path / "data"


def test_the_histogram_counts_every_document_by_its_length(tmp_path: Path) -> None:
    report = report_dataset(prepared(tmp_path))
    lengths = [len(text.encode()) + 1 for text in TEXTS if text]
    for bucket in report.lengths:
        inside = sum(bucket.up_to_tokens / 2 < length <= bucket.up_to_tokens for length in lengths)
        assert bucket.documents == inside
    assert sum(bucket.documents for bucket in report.lengths) == len(lengths) == report.counted_documents


def test_duplicates_and_empty_documents_are_told(tmp_path: Path) -> None:
    report = report_dataset(prepared(tmp_path))
    assert report.manifest.counts.duplicate_documents == 1
    assert report.manifest.counts.empty_documents == 1
    assert report.documents == len(TEXTS) - 1
    assert report.manifest.counts.text_bytes == sum(len(text.encode()) for text in TEXTS)
    tokens = report.train_tokens + report.val_tokens
    assert np.isclose(report.bytes_per_token, report.manifest.counts.text_bytes / tokens)


def test_samples_are_the_beginnings_of_documents(tmp_path: Path) -> None:
    for tokens_per_shard in (4000, 10**6):
        report = report_dataset(prepared(tmp_path / str(tokens_per_shard), tokens_per_shard))
        assert 1 <= len(report.samples) <= 3
        for sample in report.samples:
            if sample.token:
                assert any(text.startswith(sample.text.rstrip("\ufffd")) for text in TEXTS)


def test_the_command_draws_it_and_prints_it_as_json(mypt: Mypt, tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    drawn = mypt("inspect", dataset)
    assert drawn.returncode == 0, drawn.stderr
    for words in ("1 duplicate among them", "1 empty document left out", "tokens per document", "by the content"):
        assert words in drawn.stdout
    printed = json.loads(mypt("inspect", dataset, "--json").stdout)
    assert printed["schema"] == 1
    assert {"lengths", "samples", "manifest", "bytes_per_token"} <= set(printed)
