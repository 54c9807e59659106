"""mypt params: what an architecture costs, before it is trained."""

from pathlib import Path
from typing import Annotated

import typer

from mypt.cli.options import (
    CHECKPOINT_DIR,
    CheckpointDir,
    ConfigFile,
    DeviceName,
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
    micro_batch_size: Annotated[
        int | None, option("--micro-batch-size", help="Sequences per forward and backward pass.")
    ] = None,
    checkpoint_activations: Annotated[
        bool | None,
        option(
            "--checkpoint-activations/--no-checkpoint-activations", help="Compute each block anew in the backward pass."
        ),
    ] = None,
    optimizer: Annotated[str | None, option("--optimizer", help="adamw or muon.")] = None,
    precision: Annotated[
        str | None, option("--precision", help="fp32, bf16, fp16, or auto: what this machine does best.")
    ] = None,
    compile: Annotated[  # noqa: A002 - what the option is called
        str | None, option("--compile", help="on: count compiled steps.")
    ] = None,
    device: DeviceName = None,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Json = False,
) -> None:
    """Count parameters, memory and compute of a config, a model or given sizes."""
    from mypt.cli.tables import show_params
    from mypt.core.checkpoint.snapshot import Snapshot
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.core.train.memory import step_shape
    from mypt.core.train.start import is_to_compile, run_device
    from mypt.errors import UsageError
    from mypt.events import result_of
    from mypt.records.presets import DEFAULT_PRESET, find_config
    from mypt.records.reports import params_report
    from mypt.records.resolve import Layer, dotted_layer, resolve

    wanted = pick_model(name, model_name)
    if wanted is not None and config_file is not None:
        raise UsageError(f"give a model ({wanted}) or a config ({config_file}), not both")
    directory = ModelDirectory(checkpoint_dir, wanted) if wanted is not None else None
    states = directory.states() if directory is not None else []
    own = Snapshot.of(states[0]) if states else None
    if own is not None:
        saved = {"model": own.config.model_dump(), "training": own.training.training.model_dump()}
        layer = Layer(f"model {wanted}", saved, is_whole=True)
    else:
        reference = wanted if config_file is None else config_file
        layer = Layer(*find_config(DEFAULT_PRESET if reference is None else reference), is_whole=True)
    flags = {
        "model.family": family,
        "model.n_layer": n_layer,
        "model.n_head": n_head,
        "model.n_embd": n_embd,
        "model.block_size": block_size,
        "model.vocab_size": vocab_size,
        "model.bias": bias,
        "training.batch_size": batch_size,
        "training.micro_batch_size": micro_batch_size,
        "training.checkpoint_activations": checkpoint_activations,
        "training.optimizer": optimizer,
        "training.precision": precision,
        "training.compile": compile,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    config = resolve([layer, dotted_layer("flag", given)], where=layer.source).config
    # A model's own device may be another machine's.
    training = config.training.model_copy(update={"device": device or "auto"})
    chosen = result_of(run_device(config.model_copy(update={"training": training}), own))
    if is_to_compile(config, own):
        chosen = chosen.with_compiled_code()
    report = params_report(config.model, config.training, step_shape(config, chosen))
    if json:
        typer.echo(report.model_dump_json(indent=2, by_alias=True))
    else:
        show_params(report, layer.source)
