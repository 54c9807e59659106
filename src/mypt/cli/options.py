"""Options that several commands share, and how an option is declared. Light: typer alone.

Every option can be given by an environment variable too: MYPT_ and its long name.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

CHECKPOINT_DIR = "checkpoints"
TOKENIZER_DECIDES = "the tokenizer decides"
"""The source of a vocabulary size that nobody set."""
LENGTH_DECIDES = "--until-tokens or --for"
"""The source of a number of steps that depends on the text, or on the machine."""
MEMORY_DECIDES = "the memory decides"
"""The source of a number of sequences at once that nobody set beside --global-batch-tokens."""


def option(*names: str, help: str, panel: str | None = None, env: str | None = None, **more: Any) -> Any:  # noqa: A002, ANN401 - typer's own words and types
    """Declare an option; help shows neither defaults nor variables, which would drown the text."""
    variable = env or "MYPT_" + names[0].lstrip("-").split("/")[0].replace("-", "_").upper()
    more.setdefault("show_default", False)
    return typer.Option(*names, help=help, rich_help_panel=panel, envvar=variable, show_envvar=False, **more)


def complete_model(incomplete: str) -> list[str]:
    """Model names under the checkpoint directory."""
    root = Path(os.environ.get("MYPT_CHECKPOINTS", CHECKPOINT_DIR))
    names = {path.parent.name for path in root.glob("*/step-*")}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_preset(incomplete: str) -> list[str]:
    """Names of the shipped presets."""
    from mypt.records.presets import presets_directory

    return sorted(path.stem for path in presets_directory().glob(f"{incomplete}*.json"))


ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="The model's name.", show_default=False, autocompletion=complete_model),
]
ModelName = Annotated[str | None, option("--model-name", help="The model's name.", autocompletion=complete_model)]
CheckpointDir = Annotated[
    Path, option("--checkpoint-dir", help="Where models live (default: checkpoints).", env="MYPT_CHECKPOINTS")
]
ConfigFile = Annotated[
    str | None,
    option("--config-file", "-c", help="A preset's name or a config file (JSON).", autocompletion=complete_preset),
]
Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILES", help="Text files, folders or globs.", show_default=False),
]
DeviceName = Annotated[str | None, option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Json = Annotated[bool, option("--json", help="Print JSON on stdout.")]


def pick_model(argument: str | None, name: str | None) -> str | None:
    """The model named by argument or option.

    Raises:
        UsageError: when both name different ones.
    """
    if argument is not None and name is not None and argument != name:
        from mypt.errors import UsageError

        raise UsageError(f"two model names: {argument} and {name}")
    return argument if name is None else name
