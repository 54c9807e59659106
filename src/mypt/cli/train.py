"""mypt train: resolve the config, train, draw."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mypt.cli.amounts import length, with_global_batch
from mypt.cli.options import (
    CHECKPOINT_DIR,
    MEMORY_DECIDES,
    TOKENIZER_DECIDES,
    CheckpointDir,
    ConfigFile,
    DeviceName,
    Files,
    option,
)
from mypt.cli.starting import keeping_all

if TYPE_CHECKING:
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.records.resolve import Resolved

_DATA, _MODEL, _TRAINING, _SAVING, _RUN = "Text", "Architecture (of a new model)", "Training", "Saving", "Run"

# The flags that mirror a config field; any other field: --set.
FLAGS = {
    "input_file": "data.input_files",
    "dataset_dir": "data.dataset_dir",
    "tokenization": "data.tokenization",
    "val_fraction": "data.val_fraction",
    "encoding_errors": "data.encoding_errors",
    "family": "model.family",
    "n_layer": "model.n_layer",
    "n_head": "model.n_head",
    "n_embd": "model.n_embd",
    "block_size": "model.block_size",
    "dropout": "model.dropout",
    "bias": "model.bias",
    "max_iters": "training.max_iters",
    "batch_size": "training.batch_size",
    "micro_batch_size": "training.micro_batch_size",
    "checkpoint_activations": "training.checkpoint_activations",
    "optimizer": "training.optimizer",
    "learning_rate": "training.learning_rate",
    "schedule": "training.schedule",
    "eval_interval": "training.eval_interval",
    "eval_iters": "training.eval_iters",
    "patience": "training.patience",
    "save_interval": "training.save_interval",
    "keep_every": "training.keep_every",
    "on_save_error": "training.on_save_error",
    "log_interval": "training.log_interval",
    "seed": "training.seed",
    "device": "training.device",
    "precision": "training.precision",
    "compile": "training.compile",
    "kernels": "training.kernels",
    "document_mask": "training.document_mask",
}


def train(
    context: typer.Context,
    files: Files = None,
    model_name: Annotated[str, option("--model-name", help="Name of the model (default: default).")] = "default",
    config_file: ConfigFile = None,
    input_file: Annotated[
        list[str] | None, option("--input-file", "--input-files", help="Text files, folders or globs.", panel=_DATA)
    ] = None,
    dataset_dir: Annotated[
        list[str] | None,
        option(
            "--dataset-dir",
            help="Prepared datasets instead of text files; several are mixed: a:0.7 b:0.3.",
            panel=_DATA,
        ),
    ] = None,
    tokenization: Annotated[
        str | None, option("--tokenization", help="gpt2, char, byte, or a tokenizer file.", panel=_DATA)
    ] = None,
    val_fraction: Annotated[
        float | None, option("--val-fraction", help="Share of the documents held out for validation.", panel=_DATA)
    ] = None,
    encoding_errors: Annotated[
        str | None, option("--encoding-errors", help="What to do with invalid UTF-8: strict or replace.", panel=_DATA)
    ] = None,
    family: Annotated[str | None, option("--family", help="Architecture family.", panel=_MODEL)] = None,
    n_layer: Annotated[int | None, option("--n-layer", help="Transformer blocks.", panel=_MODEL)] = None,
    n_head: Annotated[int | None, option("--n-head", help="Attention heads per block.", panel=_MODEL)] = None,
    n_embd: Annotated[int | None, option("--n-embd", help="Width of the residual stream.", panel=_MODEL)] = None,
    block_size: Annotated[int | None, option("--block-size", help="Context window in tokens.", panel=_MODEL)] = None,
    dropout: Annotated[float | None, option("--dropout", help="Dropout rate while training.", panel=_MODEL)] = None,
    bias: Annotated[
        bool | None, option("--bias/--no-bias", help="Biases in linear layers and norms.", panel=_MODEL)
    ] = None,
    max_iters: Annotated[
        int | None, option("--max-iters", help="Optimizer steps of the whole run.", panel=_TRAINING)
    ] = None,
    until_tokens: Annotated[
        str | None,
        option(
            "--until-tokens",
            help="Instead of --max-iters: tokens to learn from (10M, 1e9), or so many per parameter (20x).",
            panel=_TRAINING,
        ),
    ] = None,
    for_: Annotated[
        str | None,
        option(
            "--for", help="Instead of --max-iters: how long a new model trains, e.g. 45m or 1h30m.", panel=_TRAINING
        ),
    ] = None,
    batch_size: Annotated[
        int | None, option("--batch-size", help="Sequences per optimizer step.", panel=_TRAINING)
    ] = None,
    global_batch_tokens: Annotated[
        str | None,
        option(
            "--global-batch-tokens",
            help="Instead of --batch-size: tokens per optimizer step (64k, 0.5M), in pieces that fit the memory.",
            panel=_TRAINING,
        ),
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        option(
            "--micro-batch-size",
            help="Sequences per forward and backward pass; the whole batch if not set.",
            panel=_TRAINING,
        ),
    ] = None,
    checkpoint_activations: Annotated[
        bool | None,
        option(
            "--checkpoint-activations/--no-checkpoint-activations",
            help="Compute each block anew in the backward pass: less memory, more time, same bits.",
            panel=_TRAINING,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        option(
            "--optimizer",
            help="adamw, or muon: Muon for the matrices of the blocks and AdamW for the rest.",
            panel=_TRAINING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        option(
            "--learning-rate",
            help="Peak learning rate; if not set, the optimizer's own: 0.0006 with adamw, 0.04 with muon.",
            panel=_TRAINING,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        option("--schedule", help="How the learning rate falls after warm-up: cosine, linear or wsd.", panel=_TRAINING),
    ] = None,
    eval_interval: Annotated[
        int | None, option("--eval-interval", help="Steps between evaluations.", panel=_TRAINING)
    ] = None,
    eval_iters: Annotated[
        int | None, option("--eval-iters", help="Validation batches per evaluation.", panel=_TRAINING)
    ] = None,
    patience: Annotated[
        int | None,
        option("--patience", help="End after this many evaluations without a better validation loss.", panel=_TRAINING),
    ] = None,
    save_interval: Annotated[
        int | None,
        option("--save-interval", help="Steps between checkpoints; by time if not set.", panel=_SAVING),
    ] = None,
    keep_every: Annotated[
        int | None,
        option("--keep-every", help="Save at, and keep for good, every step that this divides.", panel=_SAVING),
    ] = None,
    on_save_error: Annotated[
        str | None,
        option("--on-save-error", help="When a save fails: warn and train on, or stop.", panel=_SAVING),
    ] = None,
    log_interval: Annotated[
        int | None, option("--log-interval", help="Steps between logged losses.", panel=_TRAINING)
    ] = None,
    seed: Annotated[
        int | None, option("--seed", help="Seed of weights, data order and dropout.", panel=_TRAINING)
    ] = None,
    device: DeviceName = None,
    precision: Annotated[
        str | None, option("--precision", help="fp32, bf16, fp16, or auto: what this machine does best.")
    ] = None,
    compile: Annotated[  # noqa: A002 - what the option is called
        str | None,
        option("--compile", help="Compile the blocks before training: on, off, or auto: where it ends the run sooner."),
    ] = None,
    kernels: Annotated[
        str | None,
        option(
            "--kernels",
            help="Compute by kernels of our own on CPUs: on, off, or auto: where there is a C compiler.",
            panel=_TRAINING,
        ),
    ] = None,
    document_mask: Annotated[
        bool | None,
        option(
            "--document-mask/--no-document-mask",
            help="Attend and learn inside documents only, never across their ends.",
            panel=_TRAINING,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        option("--set", help="Any other field, e.g. training.weight_decay=0.05 (repeatable).", panel=_RUN),
    ] = None,
    init_from_model: Annotated[
        str | None, option("--init-from-model", help="Start with this model's weights, at step 0.", panel=_RUN)
    ] = None,
    fresh: Annotated[
        bool, option("--fresh", help="Set an existing model of this name aside and start anew.", panel=_RUN)
    ] = False,
    dry_run: Annotated[bool, option("--dry-run", help="Show the resolved config and stop.", panel=_RUN)] = False,
    checkpoint_dir: CheckpointDir = Path(CHECKPOINT_DIR),
    json: Annotated[bool, option("--json", help="Print events as JSON lines on stdout.")] = False,
) -> None:
    """Train a model on text files or a dataset; the same command again goes on with it."""
    from mypt.cli.progress import draw_training, show_config
    from mypt.core.checkpoint.store import ModelDirectory
    from mypt.core.data.text.sources import require_text
    from mypt.core.train.layers import require_own_text

    directory = ModelDirectory(checkpoint_dir, model_name)
    if not dry_run:
        directory.require_unlocked()  # before anything heavy is loaded
    base = ModelDirectory(checkpoint_dir, init_from_model) if init_from_model is not None else None
    given = {"input_file": [*(input_file or []), *(files or [])] or None, "dataset_dir": dataset_dir or None}
    values = dict(context.params) | given
    resolved = _resolve(context, values, config_file, None if fresh else directory, base)
    how_long = length(until_tokens, for_, resolved)
    require_own_text(resolved.config.data, None if fresh else directory)
    require_text(resolved.config.data)
    show_config(resolved, quiet=json, to_stdout=dry_run)
    if dry_run:
        return

    from mypt.cli.app import command_to_go_on
    from mypt.cli.stopping import stop_on_signals

    with stop_on_signals() as stop:
        with keeping_all():
            from mypt.core.train.run import train as run

        events = run(
            resolved.config,
            directory,
            keep_vocab_size=resolved.sources["model.vocab_size"] == "--set",
            fresh=fresh,
            init_from=base,
            length=how_long,
            fit_micro_batch=resolved.sources["training.micro_batch_size"] == MEMORY_DECIDES,
            stop=stop,
        )
        draw_training(events, stop, as_json=json, go_on=command_to_go_on())
    raise typer.Exit(stop.exit_code)


def _resolve(
    context: typer.Context,
    values: dict[str, Any],
    config_file: str | None,
    existing: "ModelDirectory | None",
    base: "ModelDirectory | None",
) -> "Resolved":
    """Layers, weakest first: saved model, preset or config file, environment, flags, --set."""
    from mypt.core.train.layers import base_layers
    from mypt.records.resolve import dotted_layer, overrides_layer, resolve

    given = {name: key for name, key in FLAGS.items() if values.get(name) is not None}
    sources = {name: context.get_parameter_source(name) for name in given}
    from_environment = {name for name, source in sources.items() if source is not None and source.name == "ENVIRONMENT"}
    layers = base_layers(config_file, existing, base)
    layers.append(dotted_layer("environment", {key: values[n] for n, key in given.items() if n in from_environment}))
    layers.append(dotted_layer("flag", {key: values[n] for n, key in given.items() if n not in from_environment}))
    layers.append(overrides_layer(values["set_"] or []))
    where = config_file or "settings"
    resolved = resolve(layers, where=where)
    if values["global_batch_tokens"] is not None:
        resolved = with_global_batch(values["global_batch_tokens"], resolved, layers, where=where)
    if resolved.sources["model.vocab_size"] != "--set" and not (existing and existing.states()):
        resolved.sources["model.vocab_size"] = TOKENIZER_DECIDES
    return resolved
