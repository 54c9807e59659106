"""mypt import-dataset: shards of other programs, used where they lie."""

from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import option


def import_dataset(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="SOURCE", help="The folder of the shards, or one .bin file.", show_default=False),
    ] = None,
    out_dir: Annotated[
        Path | None, option("--out-dir", help="Where the manifest goes; SOURCE itself is fine too.")
    ] = None,
    tokenization: Annotated[
        str | None, option("--tokenization", help="gpt2, byte, or a tokenizer file, where the shards do not say it.")
    ] = None,
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Check shards of the original MyPT, nanoGPT or llm.c, and write a manifest that points at them."""
    from mypt.cli.preparing import draw_preparation
    from mypt.core.data.importing import import_dataset as run
    from mypt.errors import UsageError

    if source is None or out_dir is None:
        raise UsageError(
            "the shards and --out-dir are needed",
            hint="For example: mypt import-dataset nanoGPT/data/openwebtext --out-dir data/openwebtext",
        )
    draw_preparation(run(source, out_dir, tokenization), as_json=json)
