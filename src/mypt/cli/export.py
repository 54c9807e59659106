"""mypt export: a model in the files of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, ModelArgument, ModelName, option, pick_model
from mypt.cli.starting import keeping_all


def export(
    name: ModelArgument = None,
    model_name: ModelName = None,
    out: Annotated[Path | None, option("--out", help="The new folder or file (default: NAME-hf or NAME.gguf).")] = None,
    to: Annotated[
        str,
        option(
            "--to",
            help="hf: a folder for transformers, vLLM and others; gguf: a file for llama.cpp, Ollama and others.",
        ),
    ] = "hf",
    precision: Annotated[
        str, option("--precision", help="Of the weights: fp32; bf16 or fp16 take half of the room.")
    ] = "fp32",
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Write a model for other programs, which load it and have to say the same before it is kept."""
    from contextlib import closing

    from mypt.cli.exchanging import draw_exchange
    from mypt.cli.stopping import stop_on_signals
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError
    from mypt.records.export import ExportConfig

    wanted = pick_model(name, model_name)
    if wanted is None:
        raise UsageError("say which model: mypt export NAME")
    config = ExportConfig.parse({"to": to, "precision": precision}, where="export")
    source = ModelDirectory(checkpoint_dir, wanted)
    with stop_on_signals() as stopped:
        with keeping_all():
            from mypt.core.exchange.export import export_model

        if stopped():  # an import may swallow it
            raise typer.Exit(stopped.exit_code)
        with closing(export_model(source, out, config)) as events:
            draw_exchange(events, as_json=json)
