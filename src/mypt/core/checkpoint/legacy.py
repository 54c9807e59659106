"""The original MyPT's checkpoints -> states of today. The original files are kept.

Two old forms: one .pt file with everything, or a folder with model.pt and JSON files. Both are
read with weights_only=True: a pickle that would run code is refused and does not run.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.errors import CheckpointError
from mypt.events import Converted, Event, Noted
from mypt.records.checkpoint import TrainingState
from mypt.records.legacy import LegacyConfig, LegacyState, LegacyTokenizer, legacy_data
from mypt.records.reports import FileEntry, ModelReport
from mypt.records.tokenizer import TokenizerSpec

Tensors = dict[str, Tensor]

_RENAMES = (
    (r"^token_embedding_table\.", "token_embedding."),
    (r"^position_embedding_table\.", "position_embedding."),
    (r"\.sa\.proj\.", ".attention.output."),
    (r"\.fwd\.net\.0\.", ".mlp.up."),
    (r"\.fwd\.net\.2\.", ".mlp.down."),
    (r"\.ln1\.", ".attention_norm."),
    (r"\.ln2\.", ".mlp_norm."),
    (r"^ln_f\.", "final_norm."),
    (r"^lm_head\.", "head."),
)
_HEAD = re.compile(r"(blocks\.\d+)\.sa\.heads\.(\d+)\.(query|key|value)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class LegacyCheckpoint:
    """One old checkpoint, read but not yet translated."""

    source: Path
    config: LegacyConfig
    tokenizer: TokenizerSpec
    state: LegacyState
    weights: Tensors
    optimizer: Mapping[str, Any] | None


def legacy_files(folder: Path) -> list[Path]:
    """The checkpoints in a model's folder: model.pt of the folder format, else each single file."""
    if (folder / "model.pt").is_file() and (folder / "config.json").is_file():
        return [folder / "model.pt"]
    return sorted(path for path in folder.glob("*.pt") if path.name not in {"model.pt", "optimizer.pt"})


def newest_legacy(folder: Path) -> Path:
    """The one to convert when none is named: the original's own preference, then the newest file."""
    paths = legacy_files(folder)
    by_name = {path.name: path for path in paths}
    return by_name.get("latest.pt") or by_name.get("final.pt") or max(paths, key=lambda path: path.stat().st_mtime)


def read_legacy(path: Path) -> LegacyCheckpoint:
    """Read an old checkpoint of either form.

    Args:
        path: the single .pt file, or model.pt of a folder.

    Raises:
        CheckpointError: when it is not one, or would run code.
    """
    content = _load_pt(path)
    if "model_state_dict" in content:
        return _read_single_file(path, content)
    if path.name == "model.pt" and (path.parent / "config.json").is_file():
        return _read_folder(path, content)
    raise CheckpointError(f"{path}: not a checkpoint of the original MyPT")


def convert(path: Path, directory: ModelDirectory, *, dry_run: bool) -> Iterator[Event]:
    """Translate one old checkpoint into a state of `directory`, optimizer and step included.

    Raises:
        CheckpointError: when the file is unfit.
    """
    old = read_legacy(path)
    config = old.config.model()
    model = GPT(config)
    step = old.state.step or 0
    target = directory.path / f"step-{step:08d}"
    if target.exists():
        yield Noted(f"{path}: already converted as {target}, nothing was changed")
        return
    try:
        model.load_state_dict(translate(old.weights, config.n_layer, config.n_head))
        moments = _moments(old, model)
    except (RuntimeError, KeyError) as problem:
        raise CheckpointError(f"{path}: its tensors do not fit its config ({problem})") from None
    if not dry_run:
        training = old.state.training(old.config.batch_size)
        state = TrainingState(
            model_name=directory.name,
            step=step,
            # The original drew windows at random and kept no count; this is how many it drew.
            samples_seen=step * training.batch_size,
            training=training,
            data=legacy_data(old.tokenizer),
            versions={"converted_from": path.name},
        )
        with directory.lock():
            directory.publish(Contents(config, old.tokenizer, state, weights_of(model), moments))
    yield Converted(
        source=str(path),
        target=str(target),
        step=step,
        parameters=config.parameters,
        tokenizer=old.tokenizer.kind,
        has_optimizer=bool(moments),
        dry_run=dry_run,
    )


def translate(old: Mapping[str, Tensor], n_layer: int, n_head: int) -> Tensors:
    """Rename the original's tensors and fuse its per-head projections.

    The fused matrix holds the rows of all query heads, then all key heads, then all value heads.
    It serves weights and the optimizer's moments alike.
    """
    new: Tensors = {}
    for name, tensor in old.items():
        if name.endswith(".tril") or _HEAD.fullmatch(name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901 - the name is what is being made
        new[name] = tensor
    for layer in range(n_layer):
        for part in ("weight", "bias"):
            rows = [
                old[key]
                for role in ("query", "key", "value")
                for head in range(n_head)
                if (key := f"blocks.{layer}.sa.heads.{head}.{role}.{part}") in old
            ]
            if rows:
                new[f"blocks.{layer}.attention.query_key_value.{part}"] = torch.cat(rows)
    return new


def _read_single_file(path: Path, content: Mapping[str, Any]) -> LegacyCheckpoint:
    tokenizer = LegacyTokenizer.parse(
        _plain(content.get("tokenizer")), where=f"{path}: tokenizer", error=CheckpointError
    )
    step = content.get("step")
    state = LegacyState.parse({"step": step if isinstance(step, int) else None}, where=str(path), error=CheckpointError)
    return LegacyCheckpoint(
        source=path,
        config=LegacyConfig.parse(_plain(content.get("config")), where=f"{path}: config", error=CheckpointError),
        tokenizer=tokenizer.spec(str(path)),
        state=state,
        weights=content["model_state_dict"],
        optimizer=content.get("optimizer_state_dict"),
    )


def _read_folder(path: Path, weights: Mapping[str, Any]) -> LegacyCheckpoint:
    folder = path.parent
    state_path, optimizer_path = folder / "training_state.json", folder / "optimizer.pt"
    state = (
        LegacyState.read(state_path, error=CheckpointError) if state_path.is_file() else LegacyState.parse({}, where="")
    )
    return LegacyCheckpoint(
        source=path,
        config=LegacyConfig.read(folder / "config.json", error=CheckpointError),
        tokenizer=LegacyTokenizer.read(folder / "tokenizer.json", error=CheckpointError).spec(str(folder)),
        state=state,
        weights=dict(weights),
        optimizer=_load_pt(optimizer_path) if optimizer_path.is_file() else None,
    )


def _plain(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _load_pt(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise CheckpointError(
            f"{path}: refused, loading it could run code that is hidden in the file",
            hint="Only files of plain tensors and values are loaded.",
        ) from None
    except Exception as problem:  # noqa: BLE001 - a damaged zip or pickle raises almost anything
        message = (
            f"{path}: cannot load it ({type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''})"
        )
        raise CheckpointError(message) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: not a checkpoint of the original MyPT")
    return dict(content)


def _moments(old: LegacyCheckpoint, model: GPT) -> Tensors:
    """Carry AdamW's moments over: the original numbered them in the order of its parameters."""
    memory = (old.optimizer or {}).get("state") or {}
    names = [name for name in old.weights if not name.endswith(".tril")]
    if len(memory) != len(names):
        return {}
    config = model.config
    steps = torch.tensor(float(memory[0]["step"]))
    moments: Tensors = {}
    for key in ("exp_avg", "exp_avg_sq"):
        by_name = {name: memory[index][key] for index, name in enumerate(names)}
        translated = translate(by_name, config.n_layer, config.n_head)
        for name, parameter in model.named_parameters():
            moments[f"{name}/step"] = steps
            moments[f"{name}/{key}"] = translated[name].reshape(parameter.shape).float()
    return moments


def report_legacy(path: Path) -> ModelReport:
    """Describe an old checkpoint without converting it.

    Raises:
        CheckpointError: when it is not one, or would run code.
    """
    old = read_legacy(path)
    config = old.config.model()
    step = old.state.step or 0
    return ModelReport(
        kind="legacy checkpoint",
        name=path.parent.name,
        path=str(path),
        parameters=sum(tensor.numel() for name, tensor in old.weights.items() if not name.endswith(".tril")),
        step=step,
        tokens_seen=step * old.config.batch_size * config.block_size,
        tokenizer=old.tokenizer.kind,
        vocab_size=old.tokenizer.vocab_size,
        config=config,
        files=(FileEntry(name=path.name, size_bytes=path.stat().st_size),),
        size_bytes=path.stat().st_size,
    )
