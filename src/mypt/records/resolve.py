"""Layers of settings -> one RunConfig, and where each value came from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mypt.errors import UsageError
from mypt.records.base import decode_json, flatten
from mypt.records.model import FAMILIES, fields_of_others
from mypt.records.run import RunConfig, TrainingConfig

_DEEPEST = 9


class Layer(NamedTuple):
    """Some values and the place they came from; later layers win."""

    source: str
    values: Mapping[str, Any]
    is_whole: bool = False
    """A preset, a config or a saved model, that was written to be used as it is; not settings one by one."""


class Resolved(NamedTuple):
    """A whole config, with the source of each dotted key."""

    config: RunConfig
    sources: dict[str, str]


def resolve(layers: Sequence[Layer], *, where: str) -> Resolved:
    """Merge layers over the defaults.

    Args:
        layers: weakest first.
        where: names the config in errors.

    Raises:
        UsageError: for unknown keys, wrong types and values out of range.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys((key for key, _ in flatten(RunConfig().model_dump())), "default")
    try:
        for layer in _with_fitting_rates(layers):
            _drop_other_source(values, layer.values)
            _drop_other_family(values, layer.values)
            _merge(values, layer.values)
            sources |= dict.fromkeys((key for key, _ in flatten(layer.values)), layer.source)
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply") from None
    return Resolved(RunConfig.parse(values, where=where), sources)


def dotted_layer(source: str, values: Mapping[str, Any]) -> Layer:
    """A layer from dotted keys: {"training.max_iters": 100}."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        _merge(nested, _nested(key.split("."), value))
    return Layer(source, nested)


def overrides_layer(assignments: Sequence[str]) -> Layer:
    """Read repeated --set a.b=c options; values are JSON, or text where they are not.

    Raises:
        UsageError: for an assignment without a key or an equals sign.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UsageError(f"--set {assignment[:80]}: should look like training.weight_decay=0.05")
        if key.count(".") > _DEEPEST:
            raise UsageError(f"--set {assignment[:80]}…: no key is that deep")
        try:
            values[key.strip()] = decode_json(text)
        except ValueError:
            values[key.strip()] = text
    return dotted_layer("--set", values)


def _with_fitting_rates(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Leave out learning rates of whole configs that were written for another optimizer than the one that is used."""
    default = TrainingConfig().optimizer
    own = [_training(layer).get("optimizer") for layer in layers]
    used = next((name for name in reversed(own) if name is not None), default)
    for layer, name in zip(layers, own, strict=True):
        if layer.is_whole and (name or default) != used and "learning_rate" in _training(layer):
            kept = {key: value for key, value in _training(layer).items() if key != "learning_rate"}
            yield layer._replace(values={**layer.values, "training": kept})
        else:
            yield layer


def _training(layer: Layer) -> Mapping[str, Any]:
    training = layer.values.get("training")
    return training if isinstance(training, Mapping) else {}


def _drop_other_source(values: Mapping[str, Any], newer: Mapping[str, Any]) -> None:
    """Text files replace a dataset of a weaker layer, and a dataset replaces text files."""
    old, new = values.get("data"), newer.get("data")
    if isinstance(old, dict) and isinstance(new, Mapping):
        for given, other in (("input_files", "dataset_dir"), ("dataset_dir", "input_files")):
            if new.get(given) and not new.get(other):
                old.pop(other, None)


def _drop_other_family(values: Mapping[str, Any], newer: Mapping[str, Any]) -> None:
    """Where a layer names a family, what only other families have goes with the weaker layer that said it."""
    old, new = values.get("model"), newer.get("model")
    if isinstance(old, dict) and isinstance(new, Mapping):
        for family in FAMILIES:
            if new.get("family") == family:
                for name in fields_of_others(family):
                    old.pop(name, None)


def _nested(path: Sequence[str], value: object) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _merge(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
