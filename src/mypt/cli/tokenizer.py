"""mypt tokenizer: make, look at, try and import tokenizers. Wakes no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, Files, Json, option

if TYPE_CHECKING:
    from mypt.records.tokenizer import TokenizerSpec

app = typer.Typer()

Wanted = Annotated[
    str,
    typer.Argument(
        metavar="NAME|PATH",
        help="gpt2, byte, a tokenizer file, a dataset's folder, or a model's name or folder.",
        show_default=False,
    ),
]
Out = Annotated[Path, option("--out", "-o", help="The file to write; must not exist.")]


@app.callback(invoke_without_command=True)
def tokenizer(context: typer.Context) -> None:
    """Train, show, test or import tokenizers."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def train(
    out: Out,
    files: Files = None,
    input_files: Annotated[
        list[str] | None, option("--input-files", "--input-file", help="Text files, folders or globs.")
    ] = None,
    vocab_size: Annotated[
        int | None, option("--vocab-size", help="Ids of a bpe tokenizer, end-of-text included.")
    ] = None,
    kind: Annotated[str | None, option("--kind", help="bpe, or char: one id per character.")] = None,
    sample_bytes: Annotated[
        str | None, option("--sample-bytes", help="About how much text a bpe tokenizer learns from (default: 2GB).")
    ] = None,
    seed: Annotated[int | None, option("--seed", help="Decides which blocks of a larger text are the sample.")] = None,
    text_format: Annotated[
        str | None, option("--text-format", help="txt, jsonl, csv, parquet, or auto: by the file's name.")
    ] = None,
    text_field: Annotated[
        str | None, option("--text-field", help="The field (or column) of a record that holds its text.")
    ] = None,
    encoding_errors: Annotated[
        str | None, option("--encoding-errors", help="What to do with invalid UTF-8: strict or replace.")
    ] = None,
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Make a tokenizer of your own text."""
    from mypt.cli.tokenizer_view import draw_tokenizer_training
    from mypt.core.data.train_tokenizer import train_tokenizer
    from mypt.errors import UsageError
    from mypt.records.tokenizer import TokenizerConfig
    from mypt.units import parse_bytes

    sources = [*(input_files or []), *(files or [])]
    example = "For example: mypt tokenizer train books/*.txt --vocab-size 8000 --out books.json"
    if not sources:
        raise UsageError("no text to learn from", hint=example)
    if (kind == "char") == (vocab_size is not None):
        raise UsageError("a bpe tokenizer needs --vocab-size, and a char tokenizer takes none", hint=example)
    try:
        sample = None if sample_bytes is None else parse_bytes(sample_bytes)
    except ValueError as problem:
        raise UsageError(f"--sample-bytes: {problem}") from None
    settings = {"kind": kind, "vocab_size": vocab_size, "sample_bytes": sample, "seed": seed}
    settings |= {"text_format": text_format, "text_field": text_field, "encoding_errors": encoding_errors}
    given = {key: value for key, value in settings.items() if value is not None}
    config = TokenizerConfig.parse({"input_files": sources, **given}, where="tokenizer train")
    draw_tokenizer_training(train_tokenizer(config, out), as_json=json)


@app.command()
def show(wanted: Wanted, checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR), json: Json = False) -> None:
    """Show what is in a tokenizer."""
    from mypt.cli.tokenizer_view import show_tokenizer
    from mypt.core.tokens.report import report_tokenizer

    report = report_tokenizer(wanted, _find(wanted, checkpoint_dir))
    if json:
        typer.echo(report.model_dump_json(indent=2, by_alias=True))
    else:
        show_tokenizer(report)


@app.command("test")
def try_(
    wanted: Wanted,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to encode.")] = "hello world",
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Json = False,
) -> None:
    """Encode a text, print its ids, and decode them again."""
    from mypt.cli.tokenizer_view import show_test
    from mypt.core.tokens.report import try_tokenizer
    from mypt.errors import DataError

    result = try_tokenizer(_find(wanted, checkpoint_dir), text)
    if json:
        typer.echo(result.model_dump_json(indent=2, by_alias=True))
    else:
        show_test(result)
    if not result.round_trip:
        raise DataError("the ids do not decode to the text")


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="tokenizer.json, vocab.bpe, merges.txt or .tiktoken.", show_default=False),
    ],
    out: Out,
    pattern: Annotated[
        str | None,
        option("--pattern", help="Regular expression that cuts words, for tables without one (default: GPT-2's)."),
    ] = None,
) -> None:
    """Turn a tokenizer file of others into one of MyPT's."""
    from mypt.core.tokens.imported import import_tokenizer
    from mypt.core.tokens.write import require_free, write_tokenizer

    require_free(out)
    spec = import_tokenizer(source, pattern)
    write_tokenizer(spec, out)
    typer.echo(f"{source}: {spec.kind} tokenizer with {spec.vocab_size:,} ids, written to {out}", err=True)


def _find(wanted: str, checkpoint_dir: Path) -> "TokenizerSpec":
    """A tokenizer by name or path, or that of a model by its name."""
    from mypt.core.tokens.find import NAMES, find_tokenizer

    model = checkpoint_dir / wanted
    by_model = wanted not in NAMES and not Path(wanted).expanduser().exists() and model.is_dir()
    return find_tokenizer(str(model) if by_model else wanted)
