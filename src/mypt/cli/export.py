"""mypt export: a model in the files of other programs."""

from pathlib import Path
from typing import Annotated

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, ModelArgument, ModelName, option, pick_model


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
    from rich.text import Text

    from mypt.cli.consoles import prose_console, write
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError
    from mypt.events import Exported, Warned
    from mypt.records.export import ExportConfig
    from mypt.units import human_bytes

    wanted = pick_model(name, model_name)
    if wanted is None:
        raise UsageError("say which model: mypt export NAME")
    config = ExportConfig.parse({"to": to, "precision": precision}, where="export")
    source = ModelDirectory(checkpoint_dir, wanted)

    from mypt.core.export.verb import export_model

    prose = prose_console()
    for event in export_model(source, out, config):
        if json:
            write(event.as_json() + "\n")
        elif isinstance(event, Warned):
            prose.print(Text.assemble(("Warning: ", "yellow"), event.message), soft_wrap=True)
        elif isinstance(event, Exported):
            told = f"step {event.step:,}, {event.precision}, {human_bytes(event.size_bytes)}"
            prose.print(f"{event.source} -> {event.target}: {told}", soft_wrap=True)
            nearness = f" to {event.largest_difference:.1g}" if event.largest_difference else ""
            agreement = f"the same tokens, and the same numbers{nearness}"
            prose.print(f"Checked by {event.checked_by}: {agreement}.", soft_wrap=True)
