"""mypt quantize: weights in 8 bits, beside the model."""

from pathlib import Path
from typing import Annotated

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, ModelArgument, ModelName, option, pick_model


def quantize(
    name: ModelArgument = None,
    model_name: ModelName = None,
    out: Annotated[str | None, option("--out", help="The new model's name (default: NAME-int8).")] = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Store a model's weights in 8 bits, as a model of their own: a quarter of the size, to generate with."""
    from rich.text import Text

    from mypt.cli.consoles import prose_console, write
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError
    from mypt.events import Noted, Quantized, Warned
    from mypt.units import human_bytes

    wanted = pick_model(name, model_name)
    if wanted is None:
        raise UsageError("say which model: mypt quantize NAME")
    source = ModelDirectory(checkpoint_dir, wanted)
    try:
        target = ModelDirectory(checkpoint_dir, f"{wanted}-int8" if out is None else out)
    except UsageError as problem:
        raise UsageError(problem.message, hint=problem.hint + " Say another: --out NAME.") from None

    from mypt.core.checkpoint.quantize import quantize_model

    prose = prose_console()
    for event in quantize_model(source, target):
        if json:
            write(event.as_json() + "\n")
        elif isinstance(event, Warned | Noted):
            prefix = ("Warning: ", "yellow") if isinstance(event, Warned) else ""
            prose.print(Text.assemble(prefix, event.message), soft_wrap=True)
        elif isinstance(event, Quantized):
            sizes = f"{human_bytes(event.size_bytes)} instead of {human_bytes(event.source_bytes)}"
            prose.print(f"{event.source} -> {event.target}: step {event.step:,}, {sizes}", soft_wrap=True)
            prose.print(f"Try it: mypt generate {target.name}", style="dim")
