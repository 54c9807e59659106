"""Working weights: fp32 masters, and what steps compute with."""

import math

import pytest
import torch

from mypt.core.model.gpt import GPT
from mypt.core.train.working import WorkingWeights
from mypt.records.model import ModelConfig

IDS = torch.arange(8).view(2, 4)


def gradients(model: GPT) -> dict[str, torch.Tensor]:
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


@pytest.fixture(params=["gpt2", "mypt-v1", "modern"])
def masters(request: pytest.FixtureRequest) -> GPT:
    """A model none of whose weights is zero."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(family=request.param, n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=12))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def test_fp32_computes_with_the_masters_themselves(masters: GPT) -> None:
    assert WorkingWeights(masters, "fp32").model is masters


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_narrow_copy_has_all_but_the_embeddings_and_leaves_the_masters_as_they_are(
    masters: GPT, precision: str, dtype: torch.dtype
) -> None:
    before = {name: tensor.clone() for name, tensor in masters.state_dict().items()}
    working = dict(WorkingWeights(masters, precision).model.named_parameters())
    for name, master in masters.named_parameters():
        assert master.dtype == torch.float32
        assert torch.equal(master, before[name])
        if "embedding" in name:
            assert working[name] is master
        else:
            assert torch.equal(working[name], master.to(dtype))


@pytest.mark.parametrize("together", [1, 600, math.inf])
def test_the_gradients_of_two_passes_add_up_in_fp32(
    masters: GPT, together: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mypt.core.train.working._TOGETHER", together)
    working = WorkingWeights(masters, "bf16")
    once: list[dict[str, torch.Tensor]] = []
    for targets in (IDS + 1, IDS + 2):
        working.model.loss(IDS, targets).backward()
        working.gather()
        once.append(
            {name: master.grad.clone() for name, master in masters.named_parameters() if master.grad is not None}
        )
        working.forget()
        masters.zero_grad(set_to_none=True)
    for targets in (IDS + 1, IDS + 2):
        working.model.loss(IDS, targets).backward()
        working.gather()
    twice = gradients(masters)
    assert twice.keys() == dict(masters.named_parameters()).keys()
    for name, gradient in twice.items():
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, once[0][name] + once[1][name]), name
    assert not any(part.grad is not None for name, part in working.model.named_parameters() if "embedding" not in name)


def test_the_gradients_are_near_those_of_fp32(masters: GPT) -> None:
    working = WorkingWeights(masters, "bf16")
    working.model.loss(IDS, IDS + 1).backward()
    working.gather()
    found = torch.cat([gradient.flatten() for gradient in gradients(masters).values()])
    masters.zero_grad(set_to_none=True)
    masters.loss(IDS, IDS + 1).backward()
    expected = torch.cat([gradient.flatten() for gradient in gradients(masters).values()])
    assert ((found - expected).norm() / expected.norm()).item() < 2e-2


def test_refreshed_weights_are_the_masters_rounded(masters: GPT) -> None:
    working = WorkingWeights(masters, "bf16")
    with torch.no_grad():
        for master in masters.parameters():
            master.add_(0.1)
    working.refresh()
    for master, part in zip(masters.parameters(), working.model.parameters(), strict=True):
        assert torch.equal(part, master.to(part.dtype))
