"""mypt import: a model of transformers, to go on with."""

from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, ModelName, option
from mypt.cli.starting import keeping_all


def import_model(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With config.json, model.safetensors and tokenizer.json.")
    ],
    model_name: ModelName = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Make a model of a GPT-2 or Qwen3 of transformers, which has to say the same; then train or generate with it."""
    from mypt.cli.consoles import prose_console
    from mypt.cli.exchanging import draw_exchange
    from mypt.cli.stopping import stop_on_signals
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError

    try:
        target = ModelDirectory(checkpoint_dir, model_name or folder.resolve().name)
    except UsageError as problem:
        if model_name:
            raise
        raise UsageError(f"the folder's {problem.message}", hint="Name the model: --model-name NAME") from None
    with stop_on_signals() as stopped:
        with keeping_all():
            from mypt.core.exchange.adopt import import_model as run

        if stopped():  # an import may swallow it
            raise typer.Exit(stopped.exit_code)
        draw_exchange(run(folder, target), as_json=json)
    if not json:
        prose_console().print(f"Try it: mypt generate {target.name}", style="dim")
