"""Tensors <-> safetensors files: the model's weights and the optimizer's memory."""

import errno
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mypt.core.model.gpt import GPT
from mypt.errors import CheckpointError
from mypt.records.model import ModelConfig


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write(tensors, path)


def load_weights(config: ModelConfig, path: Path, device: torch.device) -> GPT:
    """Build a model with the weights of a file.

    Raises:
        CheckpointError: when the file does not hold this architecture.
    """
    return build_with(config, load_tensors(path, device), path)


def build_with(config: ModelConfig, weights: dict[str, Tensor], path: Path) -> GPT:
    """Build a model around tensors that are there already; none are made anew.

    Raises:
        CheckpointError: naming `path`, when they are not this architecture's.
    """
    with torch.device("meta"):
        model = GPT(config)
    try:
        model.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as problem:
        raise CheckpointError(f"{path}: does not hold the architecture of its config ({problem})") from None
    return model.requires_grad_()


def load_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Raises:
        CheckpointError: when it is not a safetensors file.
    """
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(f"{path}: cannot load it ({problem})") from None


def save_optimizer(optimizer: Optimizer, names: dict[Tensor, str], path: Path) -> None:
    """Write an optimizer's memory, each tensor as PARAMETER/KEY."""
    tensors = {
        f"{names[parameter]}/{key}": value.detach().cpu().contiguous()
        for parameter, memory in optimizer.state.items()
        for key, value in memory.items()
    }
    _write(tensors, path)


def load_optimizer(optimizer: Optimizer, names: dict[Tensor, str], path: Path) -> None:
    """Restore an optimizer's memory.

    Raises:
        CheckpointError: when the file belongs to another model.
    """
    by_name = {name: parameter for parameter, name in names.items()}
    for full_name, tensor in load_tensors(path, torch.device("cpu")).items():
        name, _, key = full_name.rpartition("/")
        parameter = by_name.get(name)
        if parameter is None:
            raise CheckpointError(f"{path}: holds {name}, which the model does not have")
        # AdamW keeps its step count where the fused kernel wants it: on the parameter's device.
        optimizer.state[parameter][key] = tensor.to(parameter.device)


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file; safetensors' own error for a full disk becomes the system's.

    Raises:
        OSError: when the disk refuses.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as problem:
        raise OSError(errno.EIO, str(problem), str(path)) from None
