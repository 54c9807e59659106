"""mypt prepare-dataset: text into token shards."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mypt.cli.options import Files, option

_TEXT, _WORK, _MANY = "Documents", "Work", "Many machines"

# Where job arrays tell a task its number, and the number of the first task.
_ARRAY_VARIABLES = (("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN"), ("JOB_COMPLETION_INDEX", None))


def prepare_dataset(
    context: typer.Context,
    files: Files = None,
    input_files: Annotated[
        list[str] | None, option("--input-files", "--input-file", help="Text files, folders or globs.")
    ] = None,
    out_dir: Annotated[Path | None, option("--out-dir", help="The dataset's folder; must not exist yet.")] = None,
    tokenization: Annotated[str | None, option("--tokenization", help="gpt2, char, byte, or a tokenizer file.")] = None,
    val_fraction: Annotated[
        float | None, option("--val-fraction", help="Share of the documents held out for validation.")
    ] = None,
    text_format: Annotated[
        str | None, option("--text-format", help="txt, jsonl, csv, parquet, or auto: by the file's name.", panel=_TEXT)
    ] = None,
    text_field: Annotated[
        str | None,
        option("--text-field", help="The field (or column) of a record that holds its text.", panel=_TEXT),
    ] = None,
    document_separator: Annotated[
        str | None,
        option(
            "--document-separator",
            help="What separates documents in a .txt file; a file is one document if not set.",
            panel=_TEXT,
        ),
    ] = None,
    encoding_errors: Annotated[
        str | None,
        option("--encoding-errors", help="What to do with invalid UTF-8: strict or replace.", panel=_TEXT),
    ] = None,
    normalize: Annotated[
        list[str] | None,
        option("--normalize", help="Change the text: nfc, nfkc, lowercase, spaces (repeatable).", panel=_TEXT),
    ] = None,
    min_line_chars: Annotated[
        int | None, option("--min-line-chars", help="Drop lines with fewer characters.", panel=_TEXT)
    ] = None,
    max_line_chars: Annotated[
        int | None, option("--max-line-chars", help="Drop lines with more characters.", panel=_TEXT)
    ] = None,
    deduplicate: Annotated[
        bool | None,
        option("--deduplicate", help="Drop documents whose text came before, by a 128-bit hash.", panel=_TEXT),
    ] = None,
    tokens_per_shard: Annotated[
        int | None, option("--tokens-per-shard", help="Tokens per file (default: 100,000,000).", panel=_WORK)
    ] = None,
    workers: Annotated[
        int | None, option("--workers", help="Processes (default: one for each core).", panel=_WORK)
    ] = None,
    encoder: Annotated[str | None, option("--encoder", help="auto, tiktoken or gigatoken.", panel=_WORK)] = None,
    fresh: Annotated[
        bool | None, option("--fresh", help="Throw away what an unfinished preparation has done.", panel=_WORK)
    ] = None,
    rank: Annotated[
        int | None,
        option("--rank", help="Which of --world machines this is; job arrays tell it themselves.", panel=_MANY),
    ] = None,
    world: Annotated[int | None, option("--world", help="How many machines share the work.", panel=_MANY)] = None,
    finish: Annotated[
        bool | None, option("--finish", help="All ranks are done: write the shards and the manifest.", panel=_MANY)
    ] = None,
    engine: Annotated[str | None, option("--engine", help="local or ray.", panel=_MANY)] = None,
    ray_address: Annotated[
        str | None, option("--ray-address", help="The Ray cluster; a local one if not set.", panel=_MANY)
    ] = None,
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
    no_normalize: Annotated[bool, typer.Option("--no-normalize", hidden=True)] = False,
    no_filter: Annotated[bool, typer.Option("--no-filter", hidden=True)] = False,
    no_dedup: Annotated[bool, typer.Option("--no-dedup", hidden=True)] = False,
) -> None:
    """Encode text into a dataset that training reads from disk.

    A killed command goes on where it was when it is given again.
    """
    del no_normalize, no_filter, no_dedup  # the original's switches: text is kept as it is unless asked
    from mypt.cli.app import command_to_go_on
    from mypt.cli.preparing import draw_preparation, stoppable
    from mypt.core.data.prepare.verb import prepare_dataset as run
    from mypt.errors import UsageError
    from mypt.records.plan import PrepareConfig
    from mypt.records.run import DataConfig

    given: dict[str, Any] = {key: value for key, value in context.params.items() if value is not None}
    given["input_files"] = [*(input_files or []), *(files or [])]
    if document_separator is not None:
        given["document_separator"] = _unescaped(document_separator)
    if world is not None and rank is None:
        given["rank"] = _rank_of_this_task()
    if out_dir is None or not (given["input_files"] or finish):
        raise UsageError(
            "input files and --out-dir are needed",
            hint="For example: mypt prepare-dataset books/*.txt --out-dir data/books",
        )
    config = DataConfig.parse(_known(given, DataConfig.model_fields), where="prepare-dataset")
    options = PrepareConfig.parse(_known(given, PrepareConfig.model_fields), where="prepare-dataset")
    events = run(config, out_dir, options)
    with stoppable(events, go_on=command_to_go_on()):
        draw_preparation(events, as_json=json)


def _known(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in fields and value is not None}


def _unescaped(text: str) -> str:
    r"""A shell gives `\n` as two characters; here it means a line feed, and `\t` a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _rank_of_this_task() -> int | None:
    for name, first in _ARRAY_VARIABLES:
        value = os.environ.get(name, "")
        if value.isdigit():
            start = os.environ.get(first, "0") if first else "0"
            return int(value) - (int(start) if start.isdigit() else 0)
    return None
