"""AdamW's groups, clipping and the devices they run on."""

import pytest
import torch

from mypt.core.device import choose_device
from mypt.core.model.gpt import GPT
from mypt.core.train.adamw import AdamW, Group
from mypt.core.train.optimizer import build_optimizer
from mypt.errors import UsageError
from mypt.records.model import ModelConfig
from mypt.records.run import TrainingConfig

CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=20, bias=True)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = GPT(CONFIG)
    optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.3))
    decay = {id(p): group.weight_decay for group in optimizer.groups for p in group.parameters}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.dim() > 1 else 0.0), name


def test_one_update_is_adamws() -> None:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    optimizer = build_optimizer(model, TrainingConfig(learning_rate=1e-2, weight_decay=0.1, beta1=0.9, beta2=0.95))
    weight = model.blocks[0].mlp.up.weight  # pyrefly: ignore[missing-attribute]
    before, ids = weight.detach().clone(), torch.arange(8).view(1, 8)
    model.loss(ids, ids + 1).backward()
    gradient = weight.grad.clone()
    optimizer.step()
    # The first step of Adam moves by the sign of the gradient, whatever its size.
    expected = before * (1 - 1e-2 * 0.1) - 1e-2 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_adamw_gives_the_bits_of_torchs_own_and_leaves_out_the_steps_it_leaves_out() -> None:
    torch.manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.randn(*shape)) for shape in ((7, 5), (9,))] for _ in range(2))
    for mine, its in zip(ours, theirs, strict=True):
        its.data.copy_(mine.data)
    adamw = AdamW([Group(ours[:1], 1e-2, 0.1), Group(ours[1:], 3e-3)], beta1=0.9, beta2=0.95)
    groups = [{"params": theirs[:1], "lr": 1e-2, "weight_decay": 0.1}, {"params": theirs[1:], "lr": 3e-3}]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for number in range(6):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            its.grad = mine.grad.clone()
        left_out = torch.tensor(float(number == 3))
        adamw.found_inf = left_out
        reference.found_inf = left_out  # pyrefly: ignore[missing-attribute] - torch's gradient scaler sets it so
        adamw.step()
        reference.step()
    assert adamw.state[ours[0]]["step"].item() == 5
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine, its)
        for key, kept in adamw.state[mine].items():
            assert torch.equal(kept, reference.state[its][key]), key


def test_a_device_this_machine_lacks_is_refused_naming_those_it_has() -> None:
    for name in ("cuda:99", "tpu", "cpu:1", ""):
        with pytest.raises(UsageError) as caught:
            choose_device(name)
        assert "cpu" in caught.value.hint
