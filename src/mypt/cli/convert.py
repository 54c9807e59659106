"""mypt convert-legacy: checkpoints of the original MyPT into today's form."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, ModelArgument, ModelName, option, pick_model

if TYPE_CHECKING:
    from mypt.core.checkpoint.store import ModelDirectory


def convert_legacy(
    name: ModelArgument = None,
    model_name: ModelName = None,
    checkpoint: Annotated[
        str | None, option("--checkpoint", help="One .pt file: its path, or its name in the model's folder.")
    ] = None,
    all_: Annotated[bool, option("--all", help="Convert every old checkpoint under the checkpoint directory.")] = False,
    dry_run: Annotated[bool, option("--dry-run", help="Read and check, write nothing.")] = False,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Convert checkpoints of the original MyPT; the old files are kept."""
    from mypt.cli.converting import draw_conversion

    jobs = _jobs(pick_model(name, model_name), checkpoint, checkpoint_dir, every=all_)

    from mypt.core.checkpoint.legacy import convert

    problems = draw_conversion(
        ((path, convert(path, directory, dry_run=dry_run)) for path, directory in jobs), as_json=json, go_on=all_
    )
    if problems:
        raise typer.Exit(4)


def _jobs(name: str | None, checkpoint: str | None, root: Path, *, every: bool) -> "list[tuple[Path, ModelDirectory]]":
    """Which file goes into which model.

    Raises:
        UsageError: when nothing or too much is named.
        CheckpointError: when there is nothing to convert.
    """
    from mypt.core.checkpoint.legacy import legacy_files, newest_legacy
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import CheckpointError, UsageError

    if every:
        folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        jobs = [
            (newest_legacy(folder), ModelDirectory(root, folder.name)) for folder in folders if legacy_files(folder)
        ]
        if not jobs:
            raise CheckpointError(f"{root}: no old checkpoints here")
        return jobs
    if checkpoint:
        inside = root / name / checkpoint if name else None
        path = inside if inside is not None and inside.is_file() else Path(checkpoint)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        in_model_folder = path.resolve().parent.parent == root.resolve()
        return [(path, ModelDirectory(root, name or (path.resolve().parent.name if in_model_folder else path.stem)))]
    if name is None:
        raise UsageError("say what to convert: --model-name NAME, --checkpoint FILE or --all")
    directory = ModelDirectory(root, name)
    if not legacy_files(directory.path):
        raise CheckpointError(f"{directory.path}: no old checkpoint here")
    return [(newest_legacy(directory.path), directory)]
