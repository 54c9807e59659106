"""mypt prepare-dataset: text files into token shards."""

from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import Files, option


def prepare_dataset(
    files: Files = None,
    input_files: Annotated[
        list[str] | None, option("--input-files", "--input-file", help="Text files, folders or globs.")
    ] = None,
    out_dir: Annotated[Path | None, option("--out-dir", help="The dataset's folder; must not exist yet.")] = None,
    tokenization: Annotated[str | None, option("--tokenization", help="gpt2, char, byte, or a tokenizer file.")] = None,
    tokens_per_shard: Annotated[
        int, option("--tokens-per-shard", help="Tokens per file.", min=1024, show_default=True)
    ] = 100_000_000,
    val_fraction: Annotated[
        float | None, option("--val-fraction", help="Share of the documents held out for validation.")
    ] = None,
    encoding_errors: Annotated[
        str | None, option("--encoding-errors", help="What to do with invalid UTF-8: strict or replace.")
    ] = None,
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
    no_normalize: Annotated[bool, typer.Option("--no-normalize", hidden=True)] = False,
    no_filter: Annotated[bool, typer.Option("--no-filter", hidden=True)] = False,
    no_dedup: Annotated[bool, typer.Option("--no-dedup", hidden=True)] = False,
) -> None:
    """Encode text files into a dataset that training maps from disk."""
    del no_normalize, no_filter, no_dedup  # the original's switches: text is always kept as it is
    from mypt.cli.progress import draw_preparation
    from mypt.core.data.prepare import prepare_dataset as run
    from mypt.errors import UsageError
    from mypt.records.run import DataConfig

    sources = [*(input_files or []), *(files or [])]
    if not sources or out_dir is None:
        raise UsageError(
            "input files and --out-dir are needed",
            hint="For example: mypt prepare-dataset books/*.txt --out-dir data/books",
        )
    settings = {"tokenization": tokenization, "val_fraction": val_fraction, "encoding_errors": encoding_errors}
    given = {key: value for key, value in settings.items() if value is not None}
    config = DataConfig.parse({"input_files": sources, **given}, where="prepare-dataset")
    draw_preparation(run(config, out_dir, tokens_per_shard), as_json=json)
