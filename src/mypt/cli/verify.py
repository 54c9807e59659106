"""mypt verify: every byte of a dataset or a model against its manifest; and a training against itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, complete_model

if TYPE_CHECKING:
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import MyptError
    from mypt.events import Event, Replayed, Verified


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
    resume: Annotated[
        bool, typer.Option("--resume", help="Also do a model's newest steps again, and compare every bit.")
    ] = False,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Check every byte of a dataset or a model against its hashes."""
    from mypt.cli.verifying import draw_verification
    from mypt.errors import UsageError
    from mypt.events import Replayed, Verified

    model = _model(target, checkpoint_dir)
    if resume and model is None:
        raise UsageError(f"--resume: {target} is a dataset, and only a model was trained")
    for event in draw_verification(_checks(target, model, resume=resume), as_json=json):
        if isinstance(event, Verified) and event.damaged:
            raise _damaged(event, is_model=model is not None)
        if isinstance(event, Replayed) and event.differing:
            raise _differing(event)


def _model(target: str, checkpoint_dir: Path) -> "ModelDirectory | None":
    """The model that is meant; None for a dataset."""
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.core.data.report import require_no_folder_of_tokens
    from mypt.records.dataset import DATASET_FILE

    path = Path(target)
    if (path / DATASET_FILE).is_file():
        return None
    by_path = path.is_dir() and any(path.glob("step-*"))
    if path.is_dir() and not by_path:
        require_no_folder_of_tokens(path)
    root, name = (path.absolute().parent, path.absolute().name) if by_path else (checkpoint_dir, target)
    return ModelDirectory(root, name)


def _checks(target: str, model: "ModelDirectory | None", *, resume: bool) -> "Iterator[Event]":
    from mypt.core.checkpoint.verify import verify_model
    from mypt.core.data.verify import verify_dataset

    if model is None:
        yield from verify_dataset(Path(target))
        return
    yield from verify_model(model)
    if resume:
        from mypt.core.train.replay import replay

        yield from replay(model)


def _damaged(event: "Verified", *, is_model: bool) -> "MyptError":
    from mypt.errors import CheckpointError, DataError

    told = f"{len(event.damaged)} of {event.files} files are not as they were written: {_few(event.damaged)}"
    if is_model:
        return CheckpointError(told, hint="mypt train sets a damaged state aside and goes on from the one before it.")
    return DataError(told, hint="Put the files back as they were, or prepare the dataset again.")


def _differing(event: "Replayed") -> "MyptError":
    from mypt.errors import CheckpointError

    return CheckpointError(
        f"{event.path}: steps {event.first_step + 1:,} to {event.last_step:,} did not give the same bits again: "
        f"{_few(event.differing)} differ",
        hint="The same text, settings, mypt, torch, device and number of threads are needed. If all are, report it.",
    )


def _few(names: "Sequence[str]") -> str:
    shown = 3
    return ", ".join(names[:shown]) + (" …" if len(names) > shown else "")
