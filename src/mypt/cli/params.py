"""mypt params: what an architecture costs, before it is trained."""

from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import (
    CHECKPOINT_DIR,
    CheckpointDir,
    ConfigFile,
    Json,
    ModelName,
    complete_model,
    option,
    pick_model,
)


def params(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A model's or a preset's name.", show_default=False, autocompletion=complete_model
        ),
    ] = None,
    model_name: ModelName = None,
    config_file: ConfigFile = None,
    family: Annotated[str | None, option("--family", help="Architecture family.")] = None,
    n_layer: Annotated[int | None, option("--n-layer", help="Transformer blocks.")] = None,
    n_head: Annotated[int | None, option("--n-head", help="Attention heads per block.")] = None,
    n_embd: Annotated[int | None, option("--n-embd", help="Width of the residual stream.")] = None,
    block_size: Annotated[int | None, option("--block-size", help="Context window in tokens.")] = None,
    vocab_size: Annotated[int | None, option("--vocab-size", help="Rows of the embedding.")] = None,
    bias: Annotated[bool | None, option("--bias/--no-bias", help="Biases in linear layers and norms.")] = None,
    batch_size: Annotated[int | None, option("--batch-size", help="Sequences per optimizer step.")] = None,
    precision: Annotated[str, option("--precision", help="fp32, bf16 or fp16.", show_default=True)] = "fp32",
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Json = False,
) -> None:
    """Count parameters, memory and compute of a config, a model or given sizes."""
    from mypt.cli.tables import show_params
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.errors import UsageError
    from mypt.records.presets import DEFAULT_PRESET, find_config
    from mypt.records.reports import params_report
    from mypt.records.resolve import Layer, dotted_layer, resolve

    if precision not in {"fp32", "bf16", "fp16"}:
        raise UsageError(f"--precision {precision}: should be fp32, bf16 or fp16")
    wanted = pick_model(name, model_name)
    if wanted is not None and config_file is not None:
        raise UsageError(f"give a model ({wanted}) or a config ({config_file}), not both")
    directory = ModelDirectory(checkpoint_dir, wanted) if wanted is not None else None
    if directory is not None and directory.states():
        state = directory.states()[0]
        layer = Layer(f"model {wanted}", {"model": state.config().model_dump()})
    else:
        reference = wanted if config_file is None else config_file
        layer = Layer(*find_config(DEFAULT_PRESET if reference is None else reference))
    sizes = {
        "family": family,
        "n_layer": n_layer,
        "n_head": n_head,
        "n_embd": n_embd,
        "block_size": block_size,
        "vocab_size": vocab_size,
        "bias": bias,
    }
    flags = {f"model.{key}": value for key, value in sizes.items() if value is not None}
    if batch_size is not None:
        flags["training.batch_size"] = batch_size
    config = resolve([layer, dotted_layer("flag", flags)], where=layer.source).config
    report = params_report(config.model, config.training.batch_size, precision)
    if json:
        typer.echo(report.model_dump_json(indent=2, by_alias=True))
    else:
        show_params(report, layer.source)
