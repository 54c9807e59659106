"""The Python face of the commands: `mypt.train`, `mypt.evaluate`, `mypt.export` and `mypt.load`."""

import atexit
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.layers import base_layers
from mypt.events import Event, Exported, Scored, Warned
from mypt.records.resolve import dotted_layer, resolve

if TYPE_CHECKING:
    from mypt.core.generate.loaded import LoadedModel


def load(
    name: str,
    *,
    checkpoint_dir: str | Path = "checkpoints",
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32",
    int8: bool = False,
    compile: Literal["auto", "on", "off"] = "auto",  # noqa: A002 - as everywhere
) -> "LoadedModel":
    """Load a trained model: `mypt.load("shakespeare").generate("ROMEO:")`.

    Args:
        name: the model's name.
        checkpoint_dir: where models live.
        device: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.
        precision: of weights, activations and cache.
        int8: round the weights to 8 bits, if they are not yet; then the rest stays in fp32.
        compile: whether tokens are read by compiled code: 'auto' is on CPUs where there is a C compiler.

    Raises:
        CheckpointError: when there is no whole model of this name.
        UsageError: for a setting that is not allowed, a device this machine does not have, a precision beside int8, or
            code that it cannot compile.
    """
    from mypt.core.generate.loaded import load_model
    from mypt.records.sampling import LoadingConfig

    wanted = {"precision": precision, "quantize": "int8" if int8 else "none", "compile": compile}
    loading = LoadingConfig.parse(wanted, where="load")
    directory = ModelDirectory(Path(checkpoint_dir), name)
    return load_model(
        directory, device, warnings.warn, precision=loading.precision, int8=int8, compiled=loading.compile
    )


def train(
    input_files: str | Sequence[str] = (),
    *,
    model_name: str = "default",
    preset: str | None = None,
    checkpoint_dir: str | Path = "checkpoints",
    fresh: bool = False,
    init_from_model: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Event]:
    """Train a model (or go on with it), event by event; closing the iterator saves and stops.

    Args:
        input_files: text files, folders or globs; or give data.dataset_dir in `settings`.
        model_name: the model's name.
        preset: a preset's name or a config file; `small` for a new model if not given.
        checkpoint_dir: where models live.
        fresh: set an existing model aside first.
        init_from_model: start with this model's weights.
        settings: any field by its dotted name: {"training.max_iters": 100, "model.n_layer": 2}.

    Raises:
        MyptError: one of its kinds, for everything the caller can mend.
    """
    from mypt.core.train.run import train as run

    root = Path(checkpoint_dir)
    directory = ModelDirectory(root, model_name)
    base = ModelDirectory(root, init_from_model) if init_from_model else None
    layers = base_layers(preset, None if fresh else directory, base)
    files = _listed(input_files)
    if files:
        layers.append(dotted_layer("input_files", {"data.input_files": files}))
    layers.append(dotted_layer("settings", settings or {}))
    config, sources = resolve(layers, where="train")
    keeps = sources["model.vocab_size"] == "settings"
    return _closed_at_exit(run(config, directory, keep_vocab_size=keeps, fresh=fresh, init_from=base))


def evaluate(
    names: str | Sequence[str],
    *,
    input_files: str | Sequence[str] = (),
    dataset_dir: str | Sequence[str] = (),
    checkpoint_dir: str | Path = "checkpoints",
    **settings: object,
) -> list[Scored]:
    """Score models on one text: `mypt.evaluate("shakespeare", split="all")[0].bits_per_byte`.

    Args:
        names: one model, or several to compare.
        input_files: text files, folders or globs.
        dataset_dir: prepared datasets instead; where neither is given, the text that the first model was trained on.
        checkpoint_dir: where models live.
        settings: fields of EvaluationConfig, such as split="all", stride=64, device="cpu".

    Returns:
        What each model came to, in the order of the names.

    Raises:
        UsageError: for settings that do not exist or are out of range.
        MyptError: one of its kinds, for everything else the caller can mend.
    """
    from mypt.core.evaluate.verb import evaluate as run
    from mypt.records.evaluation import EvaluationConfig

    lists = {"input_files": _listed(input_files), "dataset_dir": _listed(dataset_dir)}
    config = EvaluationConfig.parse(settings | lists, where="evaluate")
    root, wanted = Path(checkpoint_dir), dict.fromkeys(_listed(names))
    scored = dict[str, Scored]()
    for event in run(config, [ModelDirectory(root, name) for name in wanted]):
        if isinstance(event, Scored):
            scored[event.model_name] = event
        elif isinstance(event, Warned):
            warnings.warn(event.message, stacklevel=2)
    return [scored[name] for name in wanted]


def export(
    name: str,
    out: str | Path | None = None,
    *,
    to: Literal["hf", "gguf"] = "hf",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    checkpoint_dir: str | Path = "checkpoints",
) -> Exported:
    """Write a model for other programs, which load it and have to say the same: `mypt.export("tales", to="gguf")`.

    Args:
        name: the model's name.
        out: the new folder or file; NAME-hf or NAME.gguf if not given.
        to: 'hf' for transformers and others, 'gguf' for llama.cpp and others.
        precision: of the weights in it.
        checkpoint_dir: where models live.

    Returns:
        Where it is, who checked it and what the largest difference was.

    Raises:
        UsageError: for a setting that is not allowed.
        MyptError: one of its kinds, for everything else the caller can mend.
    """
    from mypt.core.exchange.export import export_model
    from mypt.records.export import ExportConfig

    config = ExportConfig.parse({"to": to, "precision": precision}, where="export")
    source = ModelDirectory(Path(checkpoint_dir), name)
    exported: Exported | None = None
    for event in export_model(source, None if out is None else Path(out), config):
        if isinstance(event, Exported):
            exported = event
        elif isinstance(event, Warned):
            warnings.warn(event.message, stacklevel=2)
    assert exported is not None, "the last event"
    return exported


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _closed_at_exit(events: Generator[Event]) -> Generator[Event]:
    """Save also where a program ends in the middle of a run: later Python has nothing left to save with."""
    atexit.register(events.close)
    try:
        yield from events
    finally:
        atexit.unregister(events.close)
