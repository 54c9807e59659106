"""The loss some rows at a time equals the plain one, values and gradients."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.model import loss
from mypt.core.model.loss import logits_to_gradient, mean_loss, token_scores
from mypt.records import memory

WIDTH, VOCABULARY = 5, 11


class Head(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor


def make_head(rows: int, *, biased: bool, share_left_out: float, dtype: torch.dtype = torch.float64) -> Head:
    torch.manual_seed(rows)
    targets = torch.randint(VOCABULARY, (rows,))
    targets[torch.rand(rows) < share_left_out] = -100
    tensors = [torch.randn(shape, dtype=dtype).mul(3) for shape in ((rows, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))]
    hidden, weight, bias = (tensor.requires_grad_() for tensor in tensors)
    return Head(hidden, weight, bias if biased else None, targets)


def widened(head: Head) -> Head:
    """The same numbers in fp64."""
    assert head.bias is not None
    hidden, weight, bias = (part.detach().double().requires_grad_() for part in (head.hidden, head.weight, head.bias))
    return Head(hidden, weight, bias, head.targets)


def plain_loss(head: Head) -> Tensor:
    logits = F.linear(head.hidden, head.weight, head.bias)
    return F.cross_entropy(logits, head.targets, reduction="none")


def gradients(of: Tensor, head: Head) -> list[Tensor]:
    parameters = [tensor for tensor in (head.hidden, head.weight, head.bias) if tensor is not None]
    return list(torch.autograd.grad(of, parameters))


@pytest.fixture(params=[1, 3, 1000], autouse=True)
def _rows_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_FEWEST_ROWS", request.param)
    monkeypatch.setattr(memory, "_LOGITS_BYTES", 1)
    monkeypatch.setattr(loss, "_SCORES_AT_ONCE", 2 * VOCABULARY)


@settings(deadline=None)
@given(rows=st.integers(1, 20), biased=st.booleans(), share_left_out=st.sampled_from([0.0, 0.4, 1.0]))
def test_loss_and_gradients_equal_the_plain_ones(rows: int, biased: bool, share_left_out: float) -> None:
    head = make_head(rows, biased=biased, share_left_out=share_left_out)
    predicted = (head.targets >= 0).sum().clamp(min=1)
    expected = plain_loss(head).sum() / predicted
    found = mean_loss(*head, predicted)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    # Scaled, as an accumulation scales it.
    for mine, theirs in zip(gradients(found * 0.7, head), gradients(expected * 0.7, head), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


@settings(deadline=None)
@given(rows=st.integers(1, 20), biased=st.booleans())
def test_scores_of_tokens_equal_the_plain_ones(rows: int, biased: bool) -> None:
    head = make_head(rows, biased=biased, share_left_out=0.3)

    def to_logits(hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, head.weight, head.bias)

    scores = token_scores(head.hidden, to_logits, VOCABULARY, head.targets)
    torch.testing.assert_close(scores.losses_N, plain_loss(head).detach(), rtol=1e-12, atol=1e-12)
    likeliest = to_logits(head.hidden).argmax(1)
    assert torch.equal(scores.hits_N, likeliest == head.targets)


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    targets = torch.tensor([0, 1, -100])
    scores = token_scores(torch.ones(3, 2), lambda hidden: hidden.new_zeros(len(hidden), 4), 4, targets)
    assert scores.hits_N.tolist() == [True, False, False]


def test_losses_of_pieces_add_up_to_the_loss_of_the_whole() -> None:
    head = make_head(9, biased=True, share_left_out=0.3)
    predicted = (head.targets >= 0).sum()
    pieces = [Head(head.hidden[rows], head.weight, head.bias, head.targets[rows]) for rows in (slice(4), slice(4, 9))]
    total = torch.stack([mean_loss(*piece, predicted) for piece in pieces]).sum()
    torch.testing.assert_close(total, mean_loss(*head, predicted), rtol=1e-12, atol=0)


def test_a_scale_multiplies_the_gradients_and_not_the_loss() -> None:
    head = make_head(9, biased=True, share_left_out=0.3)
    predicted = (head.targets >= 0).sum()
    plain, scaled = mean_loss(*head, predicted), mean_loss(*head, predicted, torch.tensor(2.0**16))
    assert torch.equal(plain, scaled)
    for once, more in zip(gradients(plain, head), gradients(scaled, head), strict=True):
        torch.testing.assert_close(more, once * 2**16, rtol=1e-12, atol=0)


def test_gradients_too_small_for_fp16_survive_when_they_are_scaled() -> None:
    """Of as many tokens as a large batch has: each gradient is below the smallest number of fp16."""
    narrow = make_head(40, biased=True, share_left_out=0.2, dtype=torch.float16)
    wide = widened(narrow)
    predicted, scale = torch.tensor(2**26), 2.0**20
    assert not any(part.any() for part in gradients(mean_loss(*narrow, predicted), narrow)[:1])
    found = gradients(mean_loss(*narrow, predicted, torch.tensor(scale)), narrow)
    for mine, theirs in zip(found, gradients(plain_loss(wide).sum() / predicted, wide), strict=True):
        assert ((mine.double() / scale - theirs).norm() / theirs.norm()).item() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_compiled_for_a_gpu_computes_the_same(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    logits_RV = torch.randn(20, VOCABULARY).mul(5).to(dtype)
    targets_R = torch.randint(-2, VOCABULARY, (20,))
    found: list[Tensor] = []
    losses: list[Tensor] = []
    for is_compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda answer=is_compiling: answer)
        found.append(logits_RV.clone())
        losses.append(logits_to_gradient(found[-1], targets_R, torch.tensor(20)))
    assert torch.equal(*losses)
    assert torch.equal(*found)


def test_huge_logits_give_a_finite_loss_and_infinite_ones_do_not() -> None:
    head = make_head(4, biased=False, share_left_out=0.0)
    predicted = torch.tensor(4)
    assert mean_loss(head.hidden * 1e150, head.weight * 1e150, None, head.targets, predicted).isfinite()
    hidden = head.hidden.detach().clone()
    hidden[2, 1] = torch.inf
    assert not mean_loss(hidden, head.weight, None, head.targets, predicted).isfinite()


def test_in_bf16_loss_and_gradients_are_near_those_of_the_same_numbers_in_fp64() -> None:
    narrow = make_head(40, biased=True, share_left_out=0.2, dtype=torch.bfloat16)
    wide = widened(narrow)
    predicted = (narrow.targets >= 0).sum()
    found, expected = mean_loss(*narrow, predicted), plain_loss(wide).sum() / predicted
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-2)
    for mine, theirs in zip(gradients(found, narrow), gradients(expected, wide), strict=True):
        assert mine.dtype == torch.bfloat16
        assert ((mine.double() - theirs).norm() / theirs.norm()).item() < 2e-2


def test_the_gradient_of_a_head_more_precise_than_the_hidden_states_is_as_precise() -> None:
    """As a tied one in bf16: the look-up's gradient, which is added to it, is in fp32 as well."""
    narrow = make_head(40, biased=False, share_left_out=0.2, dtype=torch.bfloat16)
    predicted, weight_VC = (narrow.targets >= 0).sum(), narrow.weight.detach().float().requires_grad_()
    (exact,) = torch.autograd.grad(mean_loss(narrow.hidden, weight_VC, None, narrow.targets, predicted), weight_VC)
    (rounded,) = torch.autograd.grad(mean_loss(*narrow, predicted), narrow.weight)
    assert exact.dtype == torch.float32
    assert torch.equal(exact.bfloat16(), rounded)
