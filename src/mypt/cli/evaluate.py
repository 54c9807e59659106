"""mypt evaluate: how well models predict a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, DeviceName, Json, ModelName, complete_model, option
from mypt.cli.starting import keeping_all

if TYPE_CHECKING:
    from mypt.core.checkpoint.store import ModelDirectory


def evaluate(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAMES",
            help="The models' names; several are compared.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    model_name: ModelName = None,
    input_file: Annotated[
        list[str] | None, option("--input-file", "--input-files", help="Text files, folders or globs (repeatable).")
    ] = None,
    dataset_dir: Annotated[
        list[str] | None, option("--dataset-dir", help="Prepared datasets instead of text files (repeatable).")
    ] = None,
    split: Annotated[
        str | None,
        option("--split", help="What is scored of the text: val (what training holds out of it), train, or all."),
    ] = None,
    stride: Annotated[
        int | None,
        option(
            "--stride",
            help="Tokens between the starts of two windows: fewer give each token more context, and take longer; "
            "the context length if not set.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, option("--batch-size", help="Sequences at a time; as many as suit the device if not set.")
    ] = None,
    unknown: Annotated[
        str | None,
        option("--unknown", help="What to do with characters a char model does not know: error or skip."),
    ] = None,
    device: DeviceName = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Json = False,
) -> None:
    """Score models on a text: loss, perplexity, bits per byte, accuracy."""
    from mypt.cli.evaluating import draw_evaluation, show_evaluation
    from mypt.cli.stopping import stop_on_signals
    from mypt.records.evaluation import EvaluationConfig, evaluation_report

    settings = {
        "input_files": input_file or None,
        "dataset_dir": dataset_dir or None,
        "split": split,
        "stride": stride,
        "batch_size": batch_size,
        "unknown": unknown,
        "device": device,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    config = EvaluationConfig.parse(given, where="evaluate")
    directories = _directories(names or [], model_name, checkpoint_dir)
    with stop_on_signals() as stopped:
        with keeping_all():
            from mypt.core.evaluate.verb import evaluate as run

        if stopped():  # an import may swallow it
            raise typer.Exit(stopped.exit_code)
        scored = draw_evaluation(run(config, directories))
    by_name = {event.model_name: event for event in scored}
    report = evaluation_report([by_name[directory.name] for directory in directories], config.split)
    if json:
        typer.echo(report.model_dump_json(indent=2, by_alias=True))
    else:
        show_evaluation(report)


def _directories(names: Sequence[str], model_name: str | None, root: Path) -> "list[ModelDirectory]":
    """The models that are meant, each once.

    Raises:
        UsageError: for a name that cannot be one, or that is a text's.
    """
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError

    if model_name is not None and names and list(names) != [model_name]:
        raise UsageError(
            f"two model names: {' '.join(names)} and {model_name}", hint="Name all models without options."
        )
    wanted = names or ["default" if model_name is None else model_name]
    for name in wanted:
        if Path(name).is_file() and not (root / name).is_dir():
            raise UsageError(
                f"{name}: a text file, and plain arguments are models here",
                hint="Name each text by an option of its own: --input-file A --input-file B",
            )
    return [ModelDirectory(root, name) for name in dict.fromkeys(wanted)]
