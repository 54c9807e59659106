"""Tensor files of our own writing: what the safetensors library reads, and the bytes it would write."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mypt.core.checkpoint.snapshot import moments_of, parameter_names, weights_of
from mypt.core.checkpoint.tensors import TensorFile, build_with, is_finite, load_moments, load_weights
from mypt.core.model.gpt import GPT
from mypt.core.train.adamw import AdamW
from mypt.core.train.muon import Muon
from mypt.core.train.optimizer import build_optimizer
from mypt.durable import write_new
from mypt.errors import CheckpointError, DivergedError
from mypt.records.model import ModelConfig
from mypt.records.run import TrainingConfig

TYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
SHAPES = {"scalar": (), "one": (1,), "none": (0,), "empty rows": (3, 0), "odd": (3, 5, 7), "row": (33,)}
CONFIG = ModelConfig(n_layer=1, n_head=2, n_embd=8, block_size=4, vocab_size=11)


def tensors_of_all_kinds() -> dict[str, Tensor]:
    torch.manual_seed(0)
    made = {
        f"{shape_name} {dtype}": (torch.randn(shape) * 50).to(dtype)
        for shape_name, shape in SHAPES.items()
        for dtype in TYPES
    }
    grid = torch.randn(6, 8)
    return made | {"turned": grid.T, "every second": grid[::2, 1::3], "the same row": grid[0].expand(4, 8)}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape), name
        assert torch.equal(tensor, other[name]), name


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensors, path = tensors_of_all_kinds(), tmp_path / "a.safetensors"
    file = TensorFile(tensors)
    written = write_new(path, file.chunks())
    assert written.size_bytes == path.stat().st_size == file.size_bytes
    assert_same(load_file(path), tensors)


def test_the_bytes_are_those_that_the_library_writes(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in tensors_of_all_kinds().items()}
    write_new(tmp_path / "ours", TensorFile(dict(reversed(tensors.items()))).chunks())
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_models_file_is_the_same_whatever_the_order_of_its_tensors(tmp_path: Path) -> None:
    weights = weights_of(GPT(CONFIG))
    assert len(weights) > 5
    one = b"".join(map(bytes, TensorFile(weights).chunks()))
    other = b"".join(map(bytes, TensorFile(dict(reversed(weights.items()))).chunks()))
    assert one == other


def test_no_tensor_leaves_its_place_before_its_turn() -> None:
    """A state is written in the memory of its largest tensor, not of all of them."""
    weights = {name: torch.zeros(4) for name in "abc"}
    chunks = TensorFile(weights).chunks()
    next(chunks)
    weights["c"].fill_(7)
    assert [bytes(chunk)[:4] for chunk in chunks] == [b"\0\0\0\0", b"\0\0\0\0", b"\0\0\xe0\x40"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_among_many_is_found(dtype: torch.dtype, value: float) -> None:
    tensor = torch.zeros(1000, dtype=dtype)
    assert is_finite(tensor)
    tensor[777] = value
    assert not is_finite(tensor)
    with pytest.raises(DivergedError, match="layer"):
        list(TensorFile({"layer": tensor}).chunks())


def changed(**changes: Tensor | None) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Set tensors, or take them away."""

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        merged: dict[str, Tensor | None] = {**tensors, **{k.replace("__", "."): v for k, v in changes.items()}}
        return {name: tensor for name, tensor in merged.items() if tensor is not None}

    return change


WRONG_WEIGHTS = {
    "another shape": (changed(final_norm__weight=torch.zeros(9)), r"has the shape \(9,\), the model needs \(8,\)"),
    "a tensor missing": (changed(final_norm__weight=None), "lacks final_norm.weight"),
    "a tensor too many": (changed(extra=torch.zeros(2)), "holds extra, which"),
    "half precision": (changed(final_norm__weight=torch.zeros(8, dtype=torch.float16)), "is float16, not float32"),
    "whole numbers": (changed(final_norm__weight=torch.zeros(8, dtype=torch.int64)), "is int64, not float32"),
    "no number": (changed(final_norm__weight=torch.full((8,), torch.nan)), "not finite"),
}


@pytest.mark.parametrize("fault", WRONG_WEIGHTS)
def test_weights_that_no_training_here_writes_are_refused_by_name(tmp_path: Path, fault: str) -> None:
    change, message = WRONG_WEIGHTS[fault]
    path = tmp_path / "model.safetensors"
    save_file(change(weights_of(GPT(CONFIG))), path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(CONFIG, path, torch.device("cpu"))
    assert str(path) in caught.value.message


def trained(optimizer_name: str = "adamw") -> tuple[GPT, AdamW | Muon]:
    model = GPT(CONFIG)
    optimizer = build_optimizer(model, TrainingConfig.model_validate({"optimizer": optimizer_name}))
    model.loss(torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long)).backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimizers_memory_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    model, optimizer = trained(name)
    moments = moments_of(optimizer.state, parameter_names(model))
    write_new(tmp_path / "o", TensorFile(moments).chunks())
    other = build_with(CONFIG, weights_of(model), tmp_path)
    fresh = build_optimizer(other, TrainingConfig.model_validate({"optimizer": name}))
    fresh.make_moments()
    load_moments(fresh.state, parameter_names(other), tmp_path / "o")
    assert_same(moments_of(fresh.state, parameter_names(other)), moments)


NORM = "final_norm__weight/"
WRONG_MOMENTS = {
    "another shape": (changed(**{f"{NORM}exp_avg": torch.zeros(9)}), r"has the shape \(9,\), the model needs \(8,\)"),
    "a step that is a row": (changed(**{f"{NORM}step": torch.zeros(2)}), "has the shape"),
    "a moment missing": (changed(**{f"{NORM}exp_avg_sq": None}), "lacks final_norm.weight/exp_avg_sq"),
    "another key": (changed(**{f"{NORM}momentum": torch.zeros(8)}), "which the model does not have"),
    "another model's": (changed(**{"other/exp_avg": torch.zeros(8)}), "holds other/exp_avg, which"),
    "half precision": (changed(**{f"{NORM}exp_avg": torch.zeros(8, dtype=torch.bfloat16)}), "is bfloat16, not float32"),
    "no number": (changed(**{f"{NORM}exp_avg": torch.full((8,), torch.inf)}), "not finite"),
}


@pytest.mark.parametrize("fault", WRONG_MOMENTS)
def test_an_optimizers_memory_that_does_not_fit_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    change, message = WRONG_MOMENTS[fault]
    model, optimizer = trained()
    names = parameter_names(model)
    save_file(change(moments_of(optimizer.state, names)), tmp_path / "o")
    with pytest.raises(CheckpointError, match=message):
        load_moments(optimizer.state, names, tmp_path / "o")


def test_the_memory_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    model, optimizer = trained("muon")
    save_file(moments_of(optimizer.state, parameter_names(model)), tmp_path / "o")
    model, optimizer = trained("adamw")
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        load_moments(optimizer.state, parameter_names(model), tmp_path / "o")
