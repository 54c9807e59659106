"""Our kernels compute what torch does: losses and gradients, by any number of threads."""

import copy
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mypt.core.model.gpt import GPT
from mypt.core.model.kernels.calls import Calls
from mypt.core.model.kernels.code import CODE, open_kernels, place_in_model
from mypt.core.model.kernels.functions import Kernels
from mypt.core.model.kernels.structs import Heads, NormWeights
from mypt.core.model.layers import Block
from mypt.core.model.loss import head_loss
from mypt.core.native.library import SHARED, UnavailableError, library_for, open_library, targets
from mypt.core.train.working import WorkingWeights
from mypt.records.model import FamilyName, ModelConfig
from support import stirred

TARGETS = targets()
pytestmark = pytest.mark.skipif(not (TARGETS and shutil.which("gcc")), reason="no C compiler for this processor")

LONGEST = 80

PAIRED = [target for target in TARGETS if "-mavx512bf16" in target]
"""Kinds of processors whose instructions multiply pairs of numbers in bf16."""
with_pairs = pytest.mark.parametrize("target", PAIRED or [None], ids=str)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Sizes that are no multiples of anything. Not ReLU: near 0 a sum's last bit decides its gradient."""
    family: FamilyName = draw(st.sampled_from(["gpt2", "modern"]))
    n_kv_head = draw(st.integers(1, 3))
    n_head = n_kv_head * draw(st.integers(1, 3)) if family == "modern" else n_kv_head
    own: dict[str, Any] = {"n_kv_head": n_kv_head, "n_inner": draw(st.integers(1, 90))} if family == "modern" else {}
    return ModelConfig(
        family=family,
        n_layer=draw(st.integers(1, 2)),
        n_head=n_head,
        n_embd=n_head * 2 * draw(st.integers(1, 36)),
        block_size=LONGEST,
        vocab_size=draw(st.integers(1, 70)),
        **own,
    )


def gradients_of(model: GPT, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None) -> list[Tensor]:
    """The loss, and after it the gradients of all parameters."""
    loss = model.loss(ids_BT, targets_BT, documents_BT)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
@settings(max_examples=50, deadline=None)
@given(configs(), st.integers(1, LONGEST), st.booleans(), st.integers(1, 3), st.booleans())
def test_kernels_give_the_loss_and_gradients_of_torch(
    target: tuple[str, ...], config: ModelConfig, length: int, in_documents: bool, count: int, checkpointed: bool
) -> None:
    torch.manual_seed(3)
    model = stirred(GPT(config), 0.2)
    ids_BT, targets_BT = torch.randint(config.vocab_size, (2, 3, length))
    targets_BT[torch.rand(3, length) < 0.2] = -100
    documents_BT = torch.randint(3, (3, length)).sort(1)[0] if in_documents else None
    expected = gradients_of(copy.deepcopy(model).double(), ids_BT, targets_BT, documents_BT)
    by_torch = gradients_of(copy.deepcopy(model), ids_BT, targets_BT, documents_BT)
    place_in_model(model, Kernels(Calls(library_for(CODE, target)), fewest_numbers=0, most_in_block=0))
    model.checkpoint_activations = checkpointed
    with threads(count):
        found = gradients_of(model, ids_BT, targets_BT, documents_BT)
    largest = max(each.abs().max().item() for each in expected)
    for ours, theirs, rounded in zip(found, expected, by_torch, strict=True):
        # A norm of two numbers that are nearly equal blows up what rounding leaves, torch's too.
        unsure = (rounded - theirs).abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-5 * largest + 3 * unsure)


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
@pytest.mark.parametrize("width", [72, 96])
@pytest.mark.parametrize("family", ["gpt2", "mypt-v1", "modern"])
def test_in_bf16_kernels_are_as_near_to_fp32_as_torch_is(
    family: FamilyName, width: int, target: tuple[str, ...]
) -> None:
    config = ModelConfig(family=family, n_layer=2, n_head=4, n_embd=width, block_size=LONGEST, vocab_size=200)
    torch.manual_seed(3)
    narrow = stirred(GPT(config), 0.1).bfloat16()
    ids_BT, targets_BT = torch.randint(200, (2, 2, LONGEST))
    exact = gradients_of(copy.deepcopy(narrow).float(), ids_BT, targets_BT, None)
    by_torch = gradients_of(copy.deepcopy(narrow), ids_BT, targets_BT, None)
    place_in_model(narrow, Kernels(Calls(library_for(CODE, target)), fewest_numbers=0, most_in_block=0))
    by_kernels = gradients_of(narrow, ids_BT, targets_BT, None)

    def distance(found: list[Tensor]) -> float:
        return math.sqrt(sum((a - b.float()).square().sum().item() for a, b in zip(exact, found, strict=True)))

    assert 0 < distance(by_kernels) < 1.2 * distance(by_torch)


def pairs_of(target: tuple[str, ...] | None) -> Calls:
    if target is None:
        pytest.skip("the processor has no products of pairs")
    return Calls(library_for(CODE, target))


@with_pairs
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300) | st.sampled_from([32, 96, 160]), st.integers(1, 4), st.integers(1, 1500), st.integers(1, 3))
def test_the_head_in_pairs_gives_losses_and_gradients_of_the_head_in_fp32(
    target: tuple[str, ...] | None, N: int, widths: int, V: int, count: int
) -> None:
    """Little vocabularies and large ones, and rows that fill tiles or do not."""
    calls, C = pairs_of(target), 32 * widths
    torch.manual_seed(N + V)
    hidden_NC, weight_VC = torch.randn(N, C).bfloat16(), torch.randn(V, C).bfloat16()
    targets_N, divisor = torch.randint(-1, V, (N,)), torch.tensor(3.0)
    exact = head_loss(hidden_NC.double(), weight_VC.double(), None, targets_N, divisor)
    with threads(count):
        losses_N, *gradients = calls.head(hidden_NC, weight_VC, targets_N, divisor)
    torch.testing.assert_close(losses_N.sum().double(), exact.total, rtol=1e-5, atol=1e-4)
    assert not losses_N[targets_N < 0].any()
    assert gradients[1].dtype == torch.float32
    for ours, theirs in zip(gradients, (exact.hidden_NC, exact.weight_VC), strict=True):
        # What is all but certain has next to no gradient: what rounding leaves of 1 - 1.
        assert (ours.double() - theirs).norm() <= 0.01 * theirs.norm() + 1e-5


@with_pairs
@pytest.mark.parametrize("shape", [(300, 64, 5000), (50, 352, 700), (1, 32, 1), (160, 64, 300)])
def test_the_bits_of_the_head_do_not_depend_on_threads_nor_on_what_was_in_memory(
    target: tuple[str, ...] | None, shape: tuple[int, int, int]
) -> None:
    calls, (N, C, V) = pairs_of(target), shape
    hidden_NC, weight_VC = torch.randn(N, C).bfloat16(), torch.randn(V, C).bfloat16()
    targets_N, found = torch.randint(-1, V, (N,)), list[tuple[Tensor, ...]]()
    for count, memory in ((1, nullcontext()), (2, nullcontext()), (5, nullcontext()), (2, unset_memory_full_of_nan())):
        with threads(count), memory:
            found.append(calls.head(hidden_NC, weight_VC, targets_N, torch.tensor(7.0)))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@with_pairs
@pytest.mark.parametrize("rows", [2, 32])
def test_the_head_meets_large_logits_and_what_is_no_number(target: tuple[str, ...] | None, rows: int) -> None:
    calls, targets_N = pairs_of(target), torch.tensor([0, 599] * (rows // 2))
    hidden_NC = torch.ones(rows, 32).bfloat16()
    weight_VC = torch.linspace(-1e4, 1e4, 600).bfloat16()[:, None].repeat(1, 32)
    weight_VC[599] = 1.1e4
    losses_N, *gradients = calls.head(hidden_NC, weight_VC, targets_N, torch.tensor(1.0))
    torch.testing.assert_close(losses_N[:2], torch.tensor([2.1 * 32e4, 0.0]), rtol=0.01, atol=1e-3)
    assert all(gradient.isfinite().all() for gradient in gradients)
    weight_VC[300] = math.nan
    losses_N, *gradients = calls.head(hidden_NC, weight_VC, targets_N, torch.tensor(1.0))
    assert losses_N.isnan().all()
    assert all(gradient.isnan().any() for gradient in gradients)


def test_a_model_that_the_head_fits_learns_by_it() -> None:
    """A wide vocabulary in bf16, tied and not: as near to fp32 as by torch."""
    calls = open_kernels().calls
    for family in ("gpt2", "modern"):
        config = ModelConfig(family=family, n_layer=1, n_head=2, n_embd=64, block_size=40, vocab_size=5000)
        torch.manual_seed(3)
        model = stirred(GPT(config), 0.1)
        narrow = WorkingWeights(model, "bf16").model
        ids_BT, targets_BT = torch.randint(5000, (2, 3, 40))
        assert calls.does_head(torch.empty(1, 64).bfloat16(), torch.empty(5000, 64).bfloat16()) == bool(
            calls.library.mypt_has_pairs()
        )
        exact = gradients_of(copy.deepcopy(narrow).float(), ids_BT, targets_BT, None)
        place_in_model(narrow, open_kernels())
        for ours, theirs in zip(gradients_of(narrow, ids_BT, targets_BT, None), exact, strict=True):
            assert (ours.float() - theirs).norm() <= 0.05 * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_remembers_which(dtype: torch.dtype) -> None:
    kernels, x = open_kernels(), torch.ones(3, 50, 301, dtype=dtype, requires_grad=True)
    for dropout in (0.1, 0.5, 0.9):
        torch.manual_seed(5)
        dropped = kernels.drop(x, dropout)
        assert dropped.unique().tolist() == [0.0, pytest.approx(1 / (1 - dropout), rel=1e-2)]
        assert (dropped == 0).float().mean().item() == pytest.approx(dropout, abs=0.01)
        assert (dropped == 0).float().mean((0, 2)).std() < 0.03  # no place is dropped more often than others
        (gradient,) = torch.autograd.grad(dropped.sum(), x)
        assert torch.equal(gradient, dropped)
        assert not torch.equal(kernels.drop(x, dropout), dropped)
        torch.manual_seed(5)
        assert torch.equal(kernels.drop(x, dropout), dropped)


@contextmanager
def unset_memory_full_of_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # noqa: FBT003 - torch's own; it fills what nobody has set
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)  # noqa: FBT003 - torch's own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bits_do_not_depend_on_the_number_of_threads_nor_on_what_was_in_memory(dtype: torch.dtype) -> None:
    calls, found = Calls(open_library(CODE)), list[list[Tensor]]()
    torch.manual_seed(1)
    inputs_BTW, gradient_BTC = torch.randn(3, 70, 8 * 18).to(dtype), torch.randn(3, 70, 4 * 18).to(dtype)
    x_NC, (weight_C, bias_C) = torch.randn(300, 37).to(dtype), torch.randn(2, 37).to(dtype)
    norm = NormWeights(weight_C, bias_C, 1e-6, is_centered=True)
    logits_RV, targets_R = torch.randn(50, 131).to(dtype), torch.randint(-1, 131, (50,))
    heads = Heads(4, 2, torch.randn(18).to(dtype), torch.randn(18).to(dtype), 1e-6, dropout=0.3, seed=7)
    for count, memory in ((1, nullcontext()), (2, nullcontext()), (5, nullcontext()), (2, unset_memory_full_of_nan())):
        with threads(count), memory:
            mixed, sums = calls.attend(inputs_BTW, heads)
            sums_NC, normed_NC, moments = calls.norm(x_NC, x_NC, norm)
            own = logits_RV.clone()
            made = [mixed, sums, *calls.attend_back(gradient_BTC, inputs_BTW, heads, sums), sums_NC, normed_NC, own]
            made += [each for each in calls.norm_back(x_NC, x_NC, sums_NC, norm, moments) if each is not None]
            made += [calls.gate(x_NC, x_NC), *calls.gate_back(x_NC, x_NC, x_NC)]
            made += [calls.gelu(x_NC), calls.gelu_back(x_NC, x_NC), calls.drop(x_NC, 0.3, 7)]
            found.append([*made, calls.loss(own, targets_R, torch.tensor(9.0))])
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


class TestDropout:
    """Where values are the columns of a unit matrix, what is mixed shows the weights."""

    T, H, B, SHARE = 64, 2, 40, 0.25

    def weights(self, calls: Calls, seed: int) -> tuple[Tensor, Tensor, Heads]:
        torch.manual_seed(2)
        T, H, B = self.T, self.H, self.B
        inputs = torch.randn(B, T, 3 * H, T)
        inputs[:, :, 2 * H :] = torch.eye(T)[:, None]
        heads = Heads(H, H, dropout=self.SHARE, seed=seed)
        mixed, _ = calls.attend(inputs.flatten(2), heads)
        return inputs, mixed.view(B, T, H, T), heads

    def test_a_share_of_the_weights_is_dropped_by_chance_and_the_rest_raised(self) -> None:
        calls = Calls(open_library(CODE))
        inputs, dropped, heads = self.weights(calls, 5)
        whole, _ = calls.attend(inputs.flatten(2), heads._replace(dropout=0.0))
        seen = torch.ones(self.T, self.T, dtype=torch.bool).tril()[:, None].expand(self.T, self.H, self.T)
        kept, weights = dropped[:, seen] != 0, whole.view(dropped.shape)[:, seen]
        torch.testing.assert_close(dropped[:, seen], torch.where(kept, weights / (1 - self.SHARE), 0.0))
        count = kept.numel()
        assert abs(kept.sum().item() - 0.75 * count) < 4 * math.sqrt(count * 0.75 * 0.25)
        # Nor do neighbours of any kind know of each other: batch, query, head, key.
        grid = torch.zeros(dropped.shape)
        grid[:, seen] = kept.float() - 0.75
        for dimension in range(4):
            length = grid.shape[dimension] - 1
            pairs = grid.narrow(dimension, 0, length) * grid.narrow(dimension, 1, length)
            assert abs(pairs.sum().item()) < 4 * 0.75 * 0.25 * math.sqrt((pairs != 0).sum().item()), dimension
        again, others = self.weights(calls, 5)[1], self.weights(calls, 6)[1]
        assert torch.equal(again, dropped)
        assert 0.5 < ((others != 0) == (dropped != 0))[:, seen].float().mean() < 0.7  # 0.625 by chance

    def test_gradients_are_those_of_the_weights_that_were_kept(self) -> None:
        calls = Calls(open_library(CODE))
        inputs, dropped, heads = self.weights(calls, 5)
        factors = torch.where(dropped != 0, 1 / (1 - self.SHARE), 0.0).transpose(1, 2).double()
        gradient = torch.randn(dropped.flatten(2).shape)
        _, sums = calls.attend(inputs.flatten(2), heads)
        found, _ = calls.attend_back(gradient, inputs.flatten(2), heads, sums)
        wide = inputs.double().requires_grad_()
        query, key, value = wide.transpose(1, 2).split(self.H, 1)
        hidden = ~torch.ones(self.T, self.T, dtype=torch.bool).tril()
        scores = (query @ key.mT / math.sqrt(self.T)).masked_fill(hidden, -torch.inf)
        ((scores.softmax(3) * factors) @ value).transpose(1, 2).flatten(2).backward(gradient.double())
        assert wide.grad is not None
        torch.testing.assert_close(found.double(), wide.grad.flatten(2), rtol=1e-4, atol=1e-5)

    def test_a_step_is_a_function_of_its_seed_also_where_activations_are_made_anew(self) -> None:
        model = GPT(ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=40, vocab_size=30, dropout=0.2))
        place_in_model(model, open_kernels())
        ids_BT, targets_BT = torch.randint(30, (2, 3, 40))
        found: list[list[Tensor]] = []
        for seed, checkpointed in ((1, False), (1, False), (1, True), (2, False)):
            model.checkpoint_activations = checkpointed
            model.zero_grad()
            torch.manual_seed(seed)
            found.append([each.clone() for each in gradients_of(model, ids_BT, targets_BT, None)])
        assert all(torch.equal(*pair) for others in found[1:3] for pair in zip(found[0], others, strict=True))
        assert not torch.equal(found[0][0], found[3][0])
        model.eval()
        assert torch.equal(model(ids_BT), model(ids_BT))

    def test_each_layer_drops_others(self) -> None:
        model, kernels = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=40, dropout=0.2)), open_kernels()
        block = model.blocks[0]
        assert isinstance(block, Block)
        inputs_BTW = torch.randn(3, 40, 48)
        one, other = (kernels.attend(block.attention, inputs_BTW, None, None) for _ in range(2))
        assert not torch.equal(one, other)


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_evaluation_is_torchs(family: FamilyName) -> None:
    model = GPT(ModelConfig(family=family, n_layer=2, n_head=2, n_embd=16, block_size=40, vocab_size=30)).eval()
    ids_BT = torch.randint(30, (3, 40))
    expected = model(ids_BT)
    place_in_model(model, open_kernels())
    assert torch.equal(model(ids_BT), expected)
    assert not torch.equal(model.train()(ids_BT), expected)


def test_a_target_that_no_logit_is_of_is_an_error() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=9))
    place_in_model(model, open_kernels())
    with pytest.raises(IndexError, match="a target of 1000 and 9 logits"):
        model.loss(torch.zeros(1, 8, dtype=torch.long), torch.full((1, 8), 1000))


def test_numbers_are_rounded_to_bf16_as_torch_rounds() -> None:
    """Also those that lie between two numbers: then to the even one."""
    between = [1 + 2**-8, 1 + 2**-7 + 2**-8, -1 - 2**-8, -1 - 3 * 2**-8, 3.0, 1e15, 2**-120, 3.4e38, math.nan]
    numbers = torch.tensor(between * 3)
    stack = torch.empty(1, 1, len(numbers), dtype=torch.bfloat16)
    Calls(open_library(CODE)).muon_mix([numbers], [torch.zeros_like(numbers)], stack, 0.0)
    torch.testing.assert_close(stack[0, 0, :8], numbers[:8].bfloat16(), rtol=0, atol=0)
    assert stack[0, 0, 8::9].isnan().all()
    # Processors that round by one instruction take the very smallest numbers for 0.
    Calls(open_library(CODE)).muon_mix([torch.full((1,), 2**-130)], [torch.zeros(1)], stack[:, :, :1], 0.0)
    assert stack[0, 0, 0].item() in (0.0, 2**-130)


@st.composite
def small_configs(draw: st.DrawFn) -> ModelConfig:
    """Sizes that whole blocks are computed of."""
    family: FamilyName = draw(st.sampled_from(["gpt2", "mypt-v1", "modern"]))
    n_head, n_embd = draw(st.sampled_from([(1, 32), (2, 64), (4, 64), (3, 96), (2, 96)]))
    own: dict[str, Any] = {"n_inner": 32 * draw(st.integers(1, 4))} if family == "modern" else {}
    if family == "modern" and (n_head, n_embd) == (2, 64):
        own["n_kv_head"] = 1  # of 32 numbers
    if family == "gpt2":
        own["bias"] = draw(st.booleans())
    sizes = {"n_layer": 2, "n_head": n_head, "n_embd": n_embd, "block_size": 96, "vocab_size": 70}
    return ModelConfig(family=family, **sizes, **own)


@with_pairs
@settings(max_examples=40, deadline=None)
@given(small_configs(), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(1, 3), st.booleans())
def test_a_block_in_one_call_is_as_near_to_fp32_as_torch_is(
    target: tuple[str, ...] | None,
    config: ModelConfig,
    texts: int,
    thirds: int,
    in_documents: bool,
    count: int,
    checkpointed: bool,
) -> None:
    torch.manual_seed(3)
    narrow, T = stirred(GPT(config), 0.1).bfloat16(), 32 * thirds
    ids_BT, targets_BT = torch.randint(config.vocab_size, (2, texts, T))
    documents_BT = torch.randint(3, (texts, T)).sort(1)[0] if in_documents else None
    exact = gradients_of(copy.deepcopy(narrow).float(), ids_BT, targets_BT, documents_BT)
    by_torch = gradients_of(copy.deepcopy(narrow), ids_BT, targets_BT, documents_BT)
    kernels = Kernels(pairs_of(target))
    block = narrow.blocks[0]
    assert isinstance(block, Block)
    assert kernels.do_block(block, torch.empty(texts, T, config.n_embd, dtype=torch.bfloat16))
    place_in_model(narrow, kernels)
    narrow.checkpoint_activations = checkpointed
    with threads(count):
        found = gradients_of(narrow, ids_BT, targets_BT, documents_BT)
    for ours, theirs, rounded in zip(found, exact, by_torch, strict=True):
        unsure = (rounded.float() - theirs).norm().item()
        assert (ours.float() - theirs).norm() <= 1.5 * unsure + 0.01 * theirs.norm()


@with_pairs
def test_the_bits_of_a_block_do_not_depend_on_threads_nor_on_what_was_in_memory(
    target: tuple[str, ...] | None,
) -> None:
    config = ModelConfig(family="modern", n_layer=1, n_head=2, n_embd=64, block_size=96, vocab_size=70)
    torch.manual_seed(3)
    model = GPT(config).bfloat16()
    place_in_model(model, Kernels(pairs_of(target)))
    ids_BT, targets_BT = torch.randint(70, (2, 5, 96))
    found: list[list[Tensor]] = []
    for count, memory in ((1, nullcontext()), (2, nullcontext()), (5, nullcontext()), (2, unset_memory_full_of_nan())):
        with threads(count), memory:
            model.zero_grad()
            found.append([each.clone() for each in gradients_of(model, ids_BT, targets_BT, None)])
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    calls = Calls(open_library(CODE))
    for most in (0.1, 1e3, math.inf):
        gradients = [torch.randn(size) for size in ((70, 130), (1,), (5000,), (0,), (16,))]
        parameters = [torch.nn.Parameter(torch.zeros_like(each)) for each in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        expected = torch.nn.utils.clip_grad_norm_(parameters, most)
        assert math.isclose(calls.clip(gradients, most), expected.item(), rel_tol=1e-5)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            torch.testing.assert_close(gradient, parameter.grad)
    assert math.isnan(calls.clip([torch.tensor([1.0, math.nan])], 1.0))


@pytest.mark.parametrize("count", [1, 15, 16, 4097])
def test_numbers_of_one_kind_become_those_of_the_other(count: int) -> None:
    calls, numbers = Calls(open_library(CODE)), [torch.randn(count), torch.randn(3, 7)]
    narrow = [torch.empty_like(each, dtype=torch.bfloat16) for each in numbers]
    wide = [torch.empty_like(each) for each in numbers]
    calls.convert(narrow, numbers)
    calls.convert(wide, narrow)
    for each, ours, again in zip(numbers, narrow, wide, strict=True):
        assert torch.equal(ours, each.bfloat16())
        assert torch.equal(again, ours.float())


def test_rows_of_next_to_nothing_are_not_blown_up() -> None:
    x_NC, weight_C = torch.randn(5, 37) * 1e-4, torch.rand(37)
    _, normed, _ = Calls(open_library(CODE)).norm(x_NC, None, NormWeights(weight_C, None, 1e-6, is_centered=False))
    torch.testing.assert_close(normed, torch.nn.functional.rms_norm(x_NC, (37,), weight_C, 1e-6))


def test_a_gradient_that_lies_elsewhere_in_memory_counts_too() -> None:
    """One number for all, as a sum gives; or turned over."""
    model = GPT(ModelConfig(family="modern", n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=9))
    ids_BT, found = torch.randint(9, (3, 8)), list[list[Tensor]]()
    for _ in range(2):
        for is_turned in (False, True):
            model.zero_grad()
            hidden_BTC = model.hidden(ids_BT)
            (hidden_BTC.mT @ torch.ones(8, 1) if is_turned else hidden_BTC).sum().backward()
            found.append([each.grad.clone() for each in model.parameters() if each.grad is not None])
        place_in_model(model, open_kernels())
    for theirs, ours in zip(found[:2], found[2:], strict=True):
        for pair in zip(ours, theirs, strict=True):
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


def test_a_copy_of_a_model_has_its_kernels_too() -> None:
    model = GPT(ModelConfig(family="modern", n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=9))
    place_in_model(model, open_kernels())
    copied = copy.deepcopy(model)
    assert copied.final_norm.kernels is model.final_norm.kernels is open_kernels()
    assert copied.head_loss == model.head_loss


@pytest.mark.parametrize("unfit", [torch.nan, torch.inf])
def test_what_is_no_number_stays_none(unfit: float) -> None:
    model = GPT(ModelConfig(family="modern", n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=9))
    place_in_model(model, open_kernels())
    for parameter in model.parameters():
        before = parameter.flatten()[0].item()
        with torch.no_grad():
            parameter.view(-1)[0] = unfit
        loss = model.loss(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long))
        loss.backward()
        gradients = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        assert not (loss.isfinite() and gradients.isfinite().all())
        model.zero_grad()
        with torch.no_grad():
            parameter.view(-1)[0] = before


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("first * cosine - second * sine", "first * cosine + second * sine"),
        ("turn(a, gradient, position, -1)", "turn(a, gradient, position, 1)"),
        ("if (norm) y *= get(norm, i, a->D, a->kind);", ""),
        ("moved *= get(norm, i, D, kind);", ""),
        ("put(norm_gradient, i, D, FP32, get(norm_gradient, i, D, FP32) + moved * normed);", ""),
        ("(get(gradient, i, D, FP32) - normed * mean) * factor", "get(gradient, i, D, FP32) * factor"),
        ("LANE > (int32_t)(query - k)", "LANE > (int32_t)(query - k + 1)"),
        ("if (documents[k] != documents[query]) scores[k] = -INFINITY;", ";"),
        ("first + i, 1 / sqrtf(a->D));\n    }\n    multiply", "first + i, 1);\n    }\n    multiply"),
        ("get(most, i, count, FP32) + logarithm", "logarithm"),
        ("e * 0.693359375f", "0.0f"),
        ("weight * (load(moved + k, FP32) - mean)", "weight * load(moved + k, FP32)"),
        ("room->mixed, D, keys, D, QUERIES, MORE", "room->mixed, D, keys, D, QUERIES, NEW"),
        ("sum == MORE ? load(to + r * to_row + v * LANES, FP32) : (Lanes){}", "(Lanes){}"),
        ("h < (g + 1) * share", "h < g * share + 1"),
        ("(gradient - level - normed * slope) * factor", "gradient * factor"),
        ("(gradient - level - normed * slope) * factor", "(gradient - normed * slope) * factor"),
        ("get(weight_sums, i, width, FP32) + share", "share"),
        ("get(bias_sums, i, width, FP32) + gradient", "gradient"),
        ("if (biases) y += get(biases, i, n->width, kind);", ""),
        ("gradient += get(beside, i, width, kind);", ""),
        ("get(inputs, i, n->width, kind) + get(added, i, n->width, kind)", "get(inputs, i, n->width, kind)"),
        ("LANE + second * (LANES - half)", "LANE"),
        ("share * (1 + gate * (1 - share))", "share"),
        ("*of_up = moved * open;", "*of_up = moved * gate;"),
        ("(1 + 3 * squared)", "1"),
        ("raised * factor - is_target", "raised * factor"),
        ("return less + logf(all) - own;", "return logf(all) - own;"),
        ("if (targets[r] < 0)", "if (targets[r] < -1)"),
        ("return a + share * (b - a)", "return a"),
        ("float even = sqrtf(before) /", "float even = 1 /"),
        ("known + m->row_share * (square - known)", "square"),
        ("* m->shrink", ""),
        ("Halves narrowed(Lanes lanes) {", "Halves narrowed(Lanes lanes) { lanes = (Lanes)((Bits)lanes & 0xff800000);"),
    ],
)
def test_kernels_that_compute_something_else_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    require_refused(tmp_path, monkeypatch, right, wrong)


@pytest.mark.skipif(not PAIRED, reason="the processor has no products of pairs")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if (f->biases) y += load(f->biases + c + i, BF16);", ""),
        ("if (added) y += load(added + place, BF16);", ""),
        ("if (b->gates) multiply_strip(own->strip, MULTIPLE, own->gate_gradients, &f->gate, c, count, MORE);", ""),
        ("choose(x > 0.0f, moved, (Lanes){})", "moved"),
        ("add_rows(sums.down_bias, moved, count, C);", ""),
        ("store(bias_sums + i, load(bias_sums + i, FP32) + of_up);", ""),
        ("room->active_pairs, I, 0, strip", "room->up_pairs, I, 0, strip"),
        ("room->gate_pairs, I, 1, strip", "room->up_pairs, I, 1, strip"),
        ("add_up(g->key_norm, room->head_norms + b->D,", "add_up(g->key_norm, room->head_norms,"),
        ("int64_t before = is_second * rows_of(b);", "int64_t before = 0;"),
        (".documents = b->documents", ".documents = 0"),
        ("(load(moved + n * S + k, FP32) - means[n])", "load(moved + n * S + k, FP32)"),
    ],
)
def test_kernels_of_pairs_that_compute_something_else_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    require_refused(tmp_path, monkeypatch, right, wrong)


def require_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    monkeypatch.setenv("MYPT_CACHE", str(tmp_path / "cache"))
    changed = tmp_path / "changed"
    shutil.copytree(CODE.folder, changed)
    shutil.copy(SHARED / "numbers.h", changed)
    holders = [path for path in changed.glob("*.[ch]") if right in path.read_text()]
    assert holders
    for holder in holders:
        holder.write_text(holder.read_text().replace(right, wrong))
    with pytest.raises(UnavailableError, match="do not agree"):
        open_library(replace(CODE, folder=changed))
    assert [path.name.split("-")[0] for path in (tmp_path / "cache" / "native").iterdir()] == ["refused"]


@pytest.mark.parametrize("target", TARGETS, ids=" ".join)
def test_a_matrix_is_turned_over_wherever_it_lies(target: tuple[str, ...]) -> None:
    calls = Calls(library_for(CODE, target))
    whole = torch.randn(320, 192).bfloat16()
    for x_NC in (whole, whole[:32, :32], whole.t(), whole[32:, 64:96]):
        assert torch.equal(calls.turned(x_NC), x_NC.t())
