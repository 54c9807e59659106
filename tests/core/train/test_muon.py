"""Muon against the formulas written out, and the laws that it shares with AdamW."""

import shutil
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.core.native.library import targets
from mypt.core.train import muon
from mypt.core.train.adamw import AdamW, Group
from mypt.core.train.muon import Muon
from mypt.core.train.muon_kernels import KernelMuon
from mypt.core.train.optimizer import build_optimizer
from mypt.core.train.orthogonal import orthogonalized
from mypt.core.train.run import train
from mypt.events import StepDone
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig, TrainingConfig

FAMILIES = ["gpt2", "mypt-v1", "modern"]
NEEDS_KERNELS = pytest.mark.skipif(not (targets() and shutil.which("gcc")), reason="no C compiler for this processor")
CONFIG = TrainingConfig(optimizer="muon", learning_rate=0.03, weight_decay=0.2)


def model_of(family: str, dtype: torch.dtype = torch.float32) -> GPT:
    torch.manual_seed(0)
    config = {"family": family, "n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 8, "vocab_size": 20}
    return GPT(ModelConfig.model_validate(config | {"bias": family != "modern"})).to(dtype)


def with_gradients(model: GPT, seed: int) -> GPT:
    ids = torch.randint(20, (3, 8), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model.loss(ids, ids.roll(-1, 1)).backward()
    return model


def bits(model: GPT, optimizer: AdamW | Muon) -> list[bytes]:
    moments = [value for memory in optimizer.state.values() for value in memory.values()]
    return [tensor.detach().numpy().tobytes() for tensor in (*model.parameters(), *moments)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (96, 32), (1, 7), (7, 1)])
def test_singular_values_come_near_1_and_directions_stay(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    matrices *= torch.tensor([1e-4, 1.0, 1e4])[:, None, None]
    result = orthogonalized(matrices.to(dtype)).float()
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.4
    assert values.max() < 1.6
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ result @ right.mT  # diagonal where the directions are the same
    off = turned - torch.diag_embed(turned.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < (1e-3 if dtype == torch.float32 else 0.1)


def test_small_singular_values_are_lifted_over_three_decades() -> None:
    generator = torch.Generator().manual_seed(2)
    left, right = (torch.linalg.qr(torch.randn(1, 40, 40, generator=generator).double()).Q for _ in range(2))
    values = torch.logspace(-2.5, 0, 40, dtype=torch.float64)
    values /= values.norm()
    result = torch.linalg.svdvals(orthogonalized(left * values @ right))
    assert result.min() > 0.4
    assert result.max() < 1.6


def test_zeros_stay_zeros() -> None:
    assert not orthogonalized(torch.zeros(2, 3, 4)).any()


def reference_step(
    weight: Tensor, gradient: Tensor, momentum: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One update of one matrix as the papers write it, number by number."""
    momentum = 0.95 * momentum + 0.05 * gradient
    x = 0.05 * gradient + 0.95 * momentum
    x = x / (1.01 * x.square().sum().sqrt() + 1e-7)
    for a, b, c in (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    ):
        cubic = x @ x.T @ x
        x = a / 1.01 * x + b / 1.01**3 * cubic + c / 1.01**5 * (x @ x.T @ cubic)
    squares = 0.95 * squares + 0.05 * x.square().mean(1, keepdim=True)
    even = x / squares.sqrt()
    even = even * (x.norm() / even.norm())
    rows, columns = weight.shape
    rate = CONFIG.learning_rate
    return weight * (1 - 0.2 * rate) - rate * max(1.0, rows / columns) ** 0.5 * even, momentum, squares


def test_three_updates_are_the_written_out_ones() -> None:
    model = model_of("gpt2", torch.float64)
    optimizer = build_optimizer(model, CONFIG)
    names = [f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    assert len(names) == 8
    weights = dict(model.named_parameters())
    expected = {
        name: [(part.clone(), torch.zeros_like(part), part.new_zeros(len(part), 1)) for part in parts(name, weight)]
        for name, weight in weights.items()
        if name in names
    }
    for seed in range(3):
        with_gradients(model, seed)
        for name, matrices in expected.items():
            gradients = parts(name, weights[name].grad)
            matrices[:] = [
                reference_step(weight, gradient, momentum, squares)
                for (weight, momentum, squares), gradient in zip(matrices, gradients, strict=True)
            ]
        optimizer.step()
    for name, matrices in expected.items():
        torch.testing.assert_close(weights[name].detach(), torch.cat([each[0] for each in matrices]), msg=name)


def parts(name: str, tensor: Tensor | None) -> tuple[Tensor, ...]:
    """Queries, keys and values apart; every other matrix whole."""
    assert tensor is not None
    return tensor.detach().chunk(3) if "query_key_value" in name else (tensor.detach(),)


def muon_of(row_sizes: Iterable[tuple[Tensor, tuple[int, ...]]]) -> Muon:
    vector = torch.nn.Parameter(torch.zeros(2))
    vector.grad = torch.ones(2)
    return Muon(dict(row_sizes), AdamW([Group([vector], 0.1)], beta1=0.9, beta2=0.95), peak_lr=0.1, weight_decay=0.1)


def test_a_fused_projection_moves_as_its_parts_would_alone() -> None:
    whole = torch.nn.Parameter(torch.randn(14, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    alone = [torch.nn.Parameter(part.clone()) for part in whole.detach().split((6, 4, 4))]
    fused, apart = muon_of([(whole, (6, 4, 4))]), muon_of((part, (len(part),)) for part in alone)
    for seed in range(3):
        whole.grad = torch.randn(14, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for part, gradient in zip(alone, whole.grad.split((6, 4, 4)), strict=True):
            part.grad = gradient.clone()
        fused.step()
        apart.step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in alone]))


def test_how_many_matrices_share_a_product_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[list[Tensor]] = []
    for numbers in (1, 200, 2**24):
        monkeypatch.setattr(muon, "STACKED_NUMBERS", numbers)
        model = model_of("gpt2", torch.float64)
        optimizer = build_optimizer(model, CONFIG)
        with_gradients(model, 0)
        optimizer.step()
        weights.append([parameter.detach() for parameter in model.parameters()])
    torch.testing.assert_close(weights[0], weights[2])
    torch.testing.assert_close(weights[1], weights[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(family: str) -> None:
    model = model_of(family)
    optimizer = build_optimizer(model, CONFIG)
    group_of = {parameter: group for group in optimizer.groups for parameter in group.parameters}
    assert len(group_of) == sum(len(group.parameters) for group in optimizer.groups)
    optimizer.make_moments()
    for name, parameter in model.named_parameters():
        is_matrix = name.startswith("blocks.") and parameter.dim() == 2
        assert (optimizer.state[parameter].keys() == {"momentum", "row_squares"}) == is_matrix, name
        assert (group_of[parameter].weight_decay == 0.2) == is_matrix, name
        assert (group_of[parameter].peak_lr == 0.03) == is_matrix, name


@NEEDS_KERNELS
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-4), ("bf16", 0.02)])
@pytest.mark.parametrize("family", FAMILIES)
def test_by_kernels_the_updates_are_the_same_and_their_bits_do_not_depend_on_threads(
    family: str, precision: str, allowed: float
) -> None:
    found: list[list[Tensor]] = []
    before = torch.get_num_threads()
    for kernels, threads in ((False, 1), (True, 1), (True, 3)):
        model = model_of(family)
        optimizer = build_optimizer(model, CONFIG, precision, kernels=kernels)
        assert isinstance(optimizer, KernelMuon) == kernels
        for seed in range(3):
            with_gradients(model, seed)
            torch.set_num_threads(threads)
            optimizer.step()
            torch.set_num_threads(before)
        kept = [part for state in optimizer.state.values() for part in state.values()]
        found.append([*(each.detach() for each in model.parameters()), *kept])
    written, one, other = found
    for theirs, ours in zip(written, one, strict=True):
        assert (ours - theirs).norm() <= allowed * theirs.norm()
    if precision == "fp32":  # products in bf16 are torch's own
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=NEEDS_KERNELS)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("gradient", ["nan", "sound"])
def test_where_found_inf_is_1_no_bit_changes(family: str, gradient: str, *, kernels: bool) -> None:
    model = model_of(family)
    optimizer = build_optimizer(model, CONFIG, kernels=kernels)
    with_gradients(model, 0)
    optimizer.step()
    before = bits(model, optimizer)
    optimizer.found_inf = torch.tensor(1.0)
    with_gradients(model, 1)
    if gradient == "nan":
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.fill_(torch.nan)
    optimizer.step()
    assert bits(model, optimizer) == before
    optimizer.found_inf = torch.tensor(0.0)
    with_gradients(model, 1)
    optimizer.step()
    assert all(one != other for one, other in zip(bits(model, optimizer), before, strict=True))


def test_a_shortage_within_a_step_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    optimizer = build_optimizer(model, CONFIG)
    optimizer.make_moments()
    before, calls = bits(model, optimizer), 0

    def scarce(matrices: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError
        return orthogonalized(matrices)

    monkeypatch.setattr(muon, "orthogonalized", scarce)
    with_gradients(model, 0)
    with pytest.raises(torch.OutOfMemoryError):
        optimizer.step()
    assert bits(model, optimizer) == before


def test_muon_is_ahead_of_adamw_after_the_same_steps(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    """With AdamW at the better of two rates."""
    settings = {"adamw-a": ("adamw", 1e-2), "adamw-b": ("adamw", 2e-2), "muon": ("muon", 0.04)}
    losses: dict[str, float] = {}
    for name, (optimizer, rate) in settings.items():
        changes = {"optimizer": optimizer, "learning_rate": rate, "max_iters": 100, "eval_interval": 100}
        config = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update=changes)})
        events = train(config, ModelDirectory(directory.path.parent, name))
        losses[name] = sum([event.loss for event in events if isinstance(event, StepDone)][-20:]) / 20
    assert losses["muon"] < min(losses["adamw-a"], losses["adamw-b"]) - 0.03
