"""The original MyPT's .pt files -> plain tensors and values, however hostile the file.

torch.load(weights_only=True) runs no code. What it does not refuse is refused here: archives that
unpack to more than themselves, tensors that claim more than is stored, and what is no tensor.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeGuard
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from torch import Tensor

from mypt.errors import CheckpointError
from mypt.records.legacy import LegacyConfig, LegacyState, LegacyTokenizer
from mypt.records.tokenizer import TokenizerSpec

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LegacyCheckpoint:
    """One old checkpoint, read but not yet translated."""

    source: Path
    config: LegacyConfig
    tokenizer: TokenizerSpec
    state: LegacyState
    weights: Tensors
    optimizer: Mapping[str, Any] | None


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


def is_mask(name: str) -> bool:
    """The original kept the causal mask of every head among its weights."""
    return name.endswith(".tril")


def plain_mapping(value: object) -> dict[Any, Any]:
    """The mapping itself, or none."""
    return dict(value) if isinstance(value, Mapping) else {}


def _read_single_file(path: Path, content: Mapping[str, Any]) -> LegacyCheckpoint:
    tokenizer = LegacyTokenizer.parse(
        plain_mapping(content.get("tokenizer")), where=f"{path}: tokenizer", error=CheckpointError
    )
    step = content.get("step")
    state = LegacyState.parse({"step": step if isinstance(step, int) else None}, where=str(path), error=CheckpointError)
    return LegacyCheckpoint(
        source=path,
        config=LegacyConfig.parse(plain_mapping(content.get("config")), where=f"{path}: config", error=CheckpointError),
        tokenizer=tokenizer.spec(str(path)),
        state=state,
        weights=_weights(path, content["model_state_dict"]),
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
        weights=_weights(path, weights),
        optimizer=_load_pt(optimizer_path) if optimizer_path.is_file() else None,
    )


def _weights(path: Path, values: object) -> Tensors:
    """Named plain tensors, which no file can make larger than itself.

    Raises:
        CheckpointError: for anything else.
    """
    weights = {str(name): tensor for name, tensor in plain_mapping(values).items() if is_plain_tensor(tensor)}
    if not weights or len(weights) != len(plain_mapping(values)):
        raise CheckpointError(f"{path}: holds something else than tensors among its weights")
    # Tensors may be views that repeat what little is stored.
    claimed = sum(tensor.numel() * tensor.element_size() for name, tensor in weights.items() if not is_mask(name))
    if claimed > path.stat().st_size:
        raise CheckpointError(f"{path}: its tensors claim {claimed:,} bytes, the file has {path.stat().st_size:,}")
    return weights


def is_plain_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether it is floating-point numbers in memory, and nothing cleverer."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.dtype.is_floating_point


def _load_pt(path: Path) -> dict[str, Any]:
    try:
        _require_no_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders at kinds of pickle; they are loaded or refused all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
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


def _require_no_bomb(path: Path) -> None:
    """Refuse an archive that unpacks to more than itself: torch packs nothing.

    Raises:
        CheckpointError: for a packed member, or members that overlap.
    """
    if not is_zipfile(path):
        return
    with ZipFile(path) as archive:
        members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > path.stat().st_size or any(member.compress_type != ZIP_STORED for member in members):
        raise CheckpointError(f"{path}: refused, it would unpack to {unpacked:,} bytes; torch packs nothing")
