"""mypt compress: a dataset into cold storage."""

from pathlib import Path
from typing import Annotated

import typer


def compress(
    directory: Annotated[Path, typer.Argument(metavar="DATASET", help="A prepared dataset.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Pack a dataset's shards (.bin.zst) for storage or transport; training unpacks them at first use."""
    from mypt.cli.preparing import draw_preparation
    from mypt.core.data.cold import compress_dataset

    # In its own folder a dataset is called '.', which has no siblings.
    draw_preparation(compress_dataset(directory if directory.name else directory.absolute()), as_json=json)
