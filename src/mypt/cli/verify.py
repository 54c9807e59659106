"""mypt verify: every byte of a dataset or a model against its manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, complete_model

if TYPE_CHECKING:
    from mypt.errors import MyptError
    from mypt.events import Event


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="A model's name, or the path of a model or a dataset.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ],
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Check every byte of a dataset or a model against its hashes."""
    from mypt.cli.tables import show_verification
    from mypt.events import Verified

    events, kind = _verification(target, checkpoint_dir)
    for event in events:
        if json:
            typer.echo(event.as_json())
        else:
            show_verification(event)
        if isinstance(event, Verified) and event.damaged:
            names = ", ".join(event.damaged[:3]) + (" …" if len(event.damaged) > 3 else "")  # noqa: PLR2004 - enough
            raise kind(f"{len(event.damaged)} of {event.files} files are not as they were written: {names}")


def _verification(target: str, checkpoint_dir: Path) -> "tuple[Iterator[Event], type[MyptError]]":
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.core.checkpoint.verify import verify_model
    from mypt.core.data.report import require_no_folder_of_tokens
    from mypt.core.data.verify import verify_dataset
    from mypt.errors import CheckpointError, DataError
    from mypt.records.dataset import DATASET_FILE

    path = Path(target)
    if (path / DATASET_FILE).is_file():
        return verify_dataset(path), DataError
    by_path = path.is_dir() and any(path.glob("step-*"))
    if path.is_dir() and not by_path:
        require_no_folder_of_tokens(path)
    root, name = (path.absolute().parent, path.absolute().name) if by_path else (checkpoint_dir, target)
    return verify_model(ModelDirectory(root, name)), CheckpointError
