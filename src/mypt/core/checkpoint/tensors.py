"""Tensors <-> safetensors files.

Format: 8 bytes of header length (little-endian), the header as JSON, then the raw tensors, in the
order and with the bytes that the safetensors library gives.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import make_room
from mypt.errors import CheckpointError, DivergedError
from mypt.records.model import ModelConfig

# In the order of the library, which puts wide types first, so that every tensor is aligned.
Memory = Mapping[Tensor, dict[str, Tensor]]
"""What an optimizer keeps of each parameter."""

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
_RANKS = {dtype: -rank for rank, dtype in enumerate(_TYPES)}


@dataclass(frozen=True, slots=True)
class TensorFile:
    """Tensors as the bytes of a safetensors file, one tensor in memory at a time."""

    tensors: Mapping[str, Tensor]

    @property
    def size_bytes(self) -> int:
        """Exact size of the file."""
        return len(self._header()) + sum(tensor.nbytes for tensor in self.tensors.values())

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Header and tensors. Each tensor leaves its device when its turn comes.

        Raises:
            DivergedError: naming a tensor with NaN or infinity.
        """
        yield self._header()
        for name in self._order():
            tensor = self.tensors[name].detach()
            if not is_finite(tensor):
                raise DivergedError(
                    f"{name}: not all its numbers are finite, so it was not saved",
                    hint="Lower --learning-rate; the same command goes on from the last checkpoint.",
                )
            yield tensor.cpu().reshape(-1).view(torch.uint8).numpy().data

    def _order(self) -> list[str]:
        return sorted(self.tensors, key=lambda name: (_RANKS[self.tensors[name].dtype], name))

    def _header(self) -> bytes:
        table: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in self._order():
            tensor = self.tensors[name]
            end = offset + tensor.nbytes
            table[name] = {
                "dtype": _TYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)
        return len(header).to_bytes(8, "little") + header


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are; without a copy of the tensor's size."""
    if not (tensor.is_floating_point() and tensor.numel()):
        return True
    return all(math.isfinite(end.item()) for end in tensor.aminmax())


def load_weights(config: ModelConfig, path: Path, device: torch.device, *, trains: bool = True) -> GPT:
    """Build a model with the weights of a file; `trains` as of `build_with`.

    Raises:
        CheckpointError: when the file does not hold this architecture, in finite fp32 or in int8.
    """
    return build_with(config, load_tensors(path, device), path, trains=trains)


def build_with(config: ModelConfig, weights: dict[str, Tensor], path: Path, *, trains: bool = True) -> GPT:
    """Build a model around tensors that are there already; none are made anew.

    Args:
        config: the architecture.
        weights: by name.
        path: their file.
        trains: whether the model is to be trained: then int8 is refused.

    Raises:
        CheckpointError: naming `path`, when they are not this architecture's, in finite fp32 or in int8.
    """
    is_int8 = any(tensor.dtype == torch.int8 for tensor in weights.values())
    if is_int8 and trains:
        raise CheckpointError(
            f"{path}: holds weights in int8, which cannot be trained", hint="Train the model they were made of."
        )
    model = blank_model(config)
    if is_int8:
        with torch.device("meta"):
            make_room(model)
    _require_fit(path, weights, model.state_dict())
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(trains)


def blank_model(config: ModelConfig) -> GPT:
    """A model without memory for its weights: their names, shapes and types."""
    with torch.device("meta"), _WithoutFirstWeights():
        return GPT(config)


class _WithoutFirstWeights(TorchFunctionMode):
    """Modules are made, and nothing is drawn for them.

    To draw where there is no memory, torch would load its compiler: two seconds of a start.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def load_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Raises:
        CheckpointError: when it is not a safetensors file.
    """
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(f"{path}: cannot load it ({problem})") from None


def load_moments(memory: Memory, names: Mapping[Tensor, str], path: Path) -> None:
    """Restore an optimizer's memory; it holds moments already, which say what is to be there.

    Raises:
        CheckpointError: when the file belongs to another model, or to another optimizer.
    """
    saved = load_tensors(path, torch.device("cpu"))
    wanted = {f"{names[parameter]}/{key}": value for parameter, kept in memory.items() for key, value in kept.items()}
    _require_fit(path, saved, wanted)
    for parameter, kept in memory.items():
        # Where the optimizer's kernels want it: also a step count is on a device.
        kept.update({key: saved[f"{names[parameter]}/{key}"].to(value.device) for key, value in kept.items()})


def _require_fit(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse what is never written for this architecture.

    Raises:
        CheckpointError: for other names, shapes or types than wanted, NaN and infinity.
    """
    for name in sorted(tensors.keys() ^ wanted.keys()):
        what = f"holds {name}, which the model does not have" if name in tensors else f"lacks {name}"
        raise CheckpointError(f"{path}: does not fit the architecture: {what}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            told = f"{name} has the shape {tuple(tensor.shape)}, the model needs {tuple(wanted[name].shape)}"
            raise CheckpointError(f"{path}: does not fit the architecture: {told}")
        if tensor.dtype != wanted[name].dtype:
            found, needed = (str(each.dtype).removeprefix("torch.") for each in (tensor, wanted[name]))
            raise CheckpointError(f"{path}: {name} is {found}, not {needed}")
        if not is_finite(tensor):
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
