"""mypt inspect: what is in a model, a dataset or an old checkpoint. Wakes torch only for the latter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, Json, ModelName, complete_model, option

if TYPE_CHECKING:
    from mypt.records.reports import DatasetReport, ModelReport


def inspect(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|PATH",
            help="A model's name, or the path of a model, a dataset or an old .pt file.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    model_name: ModelName = None,
    legacy_checkpoint: Annotated[
        str | None, option("--legacy-checkpoint", help="An old .pt file in the model's folder.")
    ] = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Json = False,
) -> None:
    """Show what is in a model, a dataset or an old checkpoint."""
    from mypt.cli.tables import show_dataset, show_model

    wanted = model_name or target or "default"
    if legacy_checkpoint:
        inside = checkpoint_dir / wanted / legacy_checkpoint
        wanted = str(inside) if inside.is_file() else legacy_checkpoint
    report = _report(wanted, checkpoint_dir)
    if json:
        typer.echo(report.model_dump_json(indent=2, by_alias=True))
    elif report.kind == "dataset":
        show_dataset(report)
    else:
        show_model(report)


def _report(wanted: str, checkpoint_dir: Path) -> "ModelReport | DatasetReport":
    from mypt.core.checkpoint.report import report_model
    from mypt.core.checkpoint.state import State
    from mypt.core.checkpoint.store import ModelDirectory, no_such_model
    from mypt.records.dataset import DATASET_FILE

    path = Path(wanted)
    if (path / DATASET_FILE).is_file():
        from mypt.core.data.report import report_dataset

        return report_dataset(path)
    if path.is_file():
        return _legacy(path)
    step = None
    if path.name.startswith("step-") and path.is_dir():
        step = State(path).step
        path = path.parent
    by_path = path.is_dir() and (any(path.glob("step-*")) or any(path.glob("*.pt")))
    if path.is_dir() and not by_path:
        from mypt.core.data.report import require_no_folder_of_tokens

        require_no_folder_of_tokens(path)
    directory = (
        ModelDirectory(path.absolute().parent, path.absolute().name)
        if by_path
        else ModelDirectory(checkpoint_dir, wanted)
    )
    if directory.states():
        return report_model(directory, step)
    if directory.has_legacy_files():
        return _legacy(directory.path)
    raise no_such_model(directory)


def _legacy(path: Path) -> "ModelReport":
    from mypt.core.checkpoint.legacy import newest_legacy, report_legacy

    return report_legacy(path if path.is_file() else newest_legacy(path))
