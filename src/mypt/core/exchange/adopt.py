"""The import verb: a folder of transformers in, a model of ours out, once transformers says what it says."""

import re
from collections.abc import Generator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import blank_model, build_with, load_tensors
from mypt.core.device import shortage_told
from mypt.core.exchange.by_transformers import check_by_transformers, require_transformers
from mypt.core.exchange.comparison import compared
from mypt.core.exchange.hugging_face import LAYOUTS, WEIGHTS
from mypt.core.exchange.layouts import laid_out, norm_eps, taken
from mypt.core.model.gpt import GPT
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.imported import import_tokenizer
from mypt.errors import CheckpointError, MemoryShortageError
from mypt.events import Event, Imported
from mypt.records.checkpoint import TrainingState
from mypt.records.hugging_face import Gpt2Settings, ModelSettings, TokenizerFile, WeightIndex, read_model_settings
from mypt.records.run import DataConfig, TrainingConfig

_MASK = re.compile(r".*\.attn\.(masked_)?bias")
"""Files of GPT-2 have its causal mask among the weights."""
_BODY, _EMBEDDING, _HEAD = "transformer.", "model.embed_tokens.weight", "lm_head.weight"


def import_model(folder: Path, target: ModelDirectory) -> Generator[Event]:
    """Make a model of a GPT-2 or a Qwen3 as transformers has it; the folder is only read.

    Args:
        folder: with config.json, model.safetensors and tokenizer.json.
        target: the new model, at step 0.

    Raises:
        CheckpointError: when the folder is no model that has a counterpart here, or `target` is there already.
        DataError: when its tokenizer has no counterpart here.
        LockedError: when another command works on `target`.
        MissingExtraError: when transformers is not installed.
        MemoryShortageError: when the model does not fit twice.
        MyptError: when transformers says something else.
    """
    target.require_unlocked()
    _require_new(target)
    require_transformers()
    settings = read_model_settings(folder / Gpt2Settings.file)
    spec = import_tokenizer(folder / TokenizerFile.file)
    with shortage_told(lambda: MemoryShortageError(f"out of memory: {folder} does not fit twice, to be compared")):
        model = _model(folder, settings)
        if model.config.vocab_size < spec.vocab_size:
            told = f"its tokenizer has {spec.vocab_size:,} ids, its model {model.config.vocab_size:,}"
            raise CheckpointError(f"{folder}: {told}")
        tokenizer = build_tokenizer(spec)
        with compared(folder):
            checked = check_by_transformers(folder, model, tokenizer, settings)
        training = TrainingState(
            model_name=target.name,
            step=0,
            samples_seen=0,
            training=TrainingConfig(),
            data=DataConfig(tokenization=spec.kind),
            initialized_from=folder.resolve().name,
        )
        with target.lock():
            _require_new(target)
            state, size_bytes = target.publish(Contents(model.config, spec, training, weights_of(model)))
    yield Imported(
        source=str(folder),
        target=str(state.path),
        family=model.config.family,
        parameters=model.config.parameters,
        size_bytes=size_bytes,
        checked_by=checked.program,
        largest_difference=checked.largest_difference,
    )


def _require_new(target: ModelDirectory) -> None:
    """Refuse to write beside another model.

    Raises:
        CheckpointError: when there is one, or what is left of one.
    """
    if reason := target.why_nothing():
        raise reason
    if target.states():
        raise CheckpointError(f"{target.path}: there is a model already", hint="Give another --model-name.")


def _model(folder: Path, settings: ModelSettings) -> GPT:
    """The model, in fp32.

    Raises:
        CheckpointError: when its weights or sizes have no counterpart here.
    """
    tensors = _tensors(folder)
    if isinstance(settings, Gpt2Settings):
        tensors = _without_what_is_no_weight(folder, tensors)
    elif settings.tie_word_embeddings and _EMBEDDING in tensors:
        tensors.setdefault(_HEAD, tensors[_EMBEDDING])
    has_bias = any(name.endswith(".bias") and bool(tensor.any()) for name, tensor in tensors.items())
    where = folder / settings.file
    config = settings.model(str(where), bias=has_bias)
    blank, layout = blank_model(config), LAYOUTS[config.family]
    key, eps = settings.norm_eps
    if eps != norm_eps(blank):
        raise CheckpointError(f"{where}: {key} = {eps} (allowed: {norm_eps(blank)})")
    _require_fit(folder, tensors, laid_out(blank, layout, config.vocab_size))
    return build_with(config, taken(blank.state_dict(), layout, tensors), folder, trains=False).eval()


def _require_fit(folder: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse tensors that the architecture does not have, by their names there.

    Raises:
        CheckpointError: for other names, shapes or types than wanted.
    """
    for name in sorted(tensors.keys() ^ wanted.keys()):
        what = "holds the tensor {}, which has no counterpart here" if name in tensors else "lacks the tensor {}"
        raise CheckpointError(f"{folder}: {what.format(name)}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape or not tensor.is_floating_point():
            told = f"{name} is {str(tensor.dtype).removeprefix('torch.')} of the shape {tuple(tensor.shape)}"
            raise CheckpointError(f"{folder}: {told} (allowed: float32, {tuple(wanted[name].shape)})")


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of one file, or of several that an index names.

    Raises:
        CheckpointError: when there are none.
    """
    names, index = {WEIGHTS}, folder / WeightIndex.file
    if index.is_file() and not (folder / WEIGHTS).exists():
        names = set(WeightIndex.read(index, error=CheckpointError).weight_map.values())
    found: dict[str, Tensor] = {}
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            hint = "Weights in other files (.bin, .pt) have to be saved as safetensors first, by transformers."
            raise CheckpointError(f"{folder}: no file {name}", hint=hint)
        found |= load_tensors(folder / name, torch.device("cpu"))
    return found


def _without_what_is_no_weight(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's weights under their full names, which some files leave a part of; without masks, and the head's copy.

    Raises:
        CheckpointError: when the head is not the embedding.
    """
    found = {
        name if name.startswith((_BODY, _HEAD)) else _BODY + name: tensor
        for name, tensor in tensors.items()
        if not _MASK.fullmatch(name)
    }
    head = found.pop(_HEAD, None)
    if head is not None and not torch.equal(head, found.get(f"{_BODY}wte.weight", torch.empty(0))):
        raise CheckpointError(f"{folder}: {_HEAD} is not the embedding, which has no counterpart here")
    return found
