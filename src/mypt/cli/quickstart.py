"""mypt quickstart: the first success, in minutes and without a download."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import CHECKPOINT_DIR, CheckpointDir, option
from mypt.cli.starting import keeping_all

MODEL_NAME = "quickstart"


def quickstart(
    minutes: Annotated[
        float, option("--minutes", help="Training time in minutes.", min=0.02, max=1000, show_default=True)
    ] = 2.0,
    text: Annotated[
        str, option("--text", help="docs (Python's documentation) or code (its sources).", show_default=True)
    ] = "docs",
    seed: Annotated[int, option("--seed", help="Seed of weights, data order and sample.", min=0)] = 1337,
    device: Annotated[str, option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Train a small GPT on text this machine already has, and let it write."""
    from mypt.cli.progress import draw_training
    from mypt.cli.stopping import stop_on_signals
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError
    from mypt.records.run import TrainingConfig

    if text not in {"docs", "code"}:
        raise UsageError(f"--text {text}: should be docs or code")
    TrainingConfig.parse({"seed": seed, "device": device}, where="quickstart")
    from mypt.cli.app import program_name

    go_on = [program_name(), "train", "--model-name", MODEL_NAME, "--checkpoint-dir", str(checkpoint_dir)]
    directory = ModelDirectory(checkpoint_dir, MODEL_NAME)
    with stop_on_signals() as stop:
        with keeping_all():
            from mypt.core.train.quickstart import quickstart as run

        flavour = "code" if text == "code" else "docs"
        events = run(directory, minutes=minutes, flavour=flavour, seed=seed, device=device, stop=stop)
        draw_training(events, stop, as_json=json, go_on=shlex.join(go_on))
    if not stop() and not json:
        _show_next_steps(program_name(), checkpoint_dir / f"{MODEL_NAME}-{flavour}.txt")
    raise typer.Exit(stop.exit_code)


def _show_next_steps(program: str, text: Path) -> None:
    """Name the three commands that follow."""
    from rich.text import Text

    from mypt.cli.consoles import prose_console

    console = prose_console()
    console.print("\nNext:", style="bold")
    for command, meaning in (
        (f'{program} generate {MODEL_NAME} --prompt "Return the "', "let it write more"),
        (f"{program} inspect {MODEL_NAME}", "see what was trained"),
        (f"{program} train {text} --model-name mine --config-file char", "or a text of yours"),
    ):
        console.print(Text.assemble("  ", (command, "cyan"), (f"   # {meaning}", "dim")), soft_wrap=True)
