"""The model against its closed form, against itself with a cache, and against transformers."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.checkpoint.snapshot import parameter_names
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.records.budget import activation_bytes
from mypt.records.model import FamilyName, ModelConfig
from mypt.records.presets import load_preset, preset_names

FAMILIES: list[FamilyName] = ["gpt2", "mypt-v1"]


def small(family: FamilyName = "gpt2", *, bias: bool = False, dropout: float = 0.0) -> ModelConfig:
    return ModelConfig(
        family=family, n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=40, bias=bias, dropout=dropout
    )


def ids(*shape: int, vocab_size: int = 40) -> torch.Tensor:
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", preset_names())
def test_formula_counts_what_torch_counts_for_every_preset(name: str) -> None:
    config = load_preset(name).model
    with torch.device("meta"):
        model = GPT(config)
    assert config.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_formula_counts_each_part_of_each_family(family: FamilyName, bias: bool) -> None:
    config = small(family, bias=bias)
    counted: dict[str, int] = {}
    for parameter, name in parameter_names(GPT(config)).items():
        part = next(
            part
            for part in ("token_embedding", "position_embedding", "norm", "attention", "mlp", "head")
            if part in name
        )
        counted[part] = counted.get(part, 0) + parameter.numel()
    expected = config.parameter_count._asdict()
    expected["norm"] = expected.pop("norms")
    assert {part: count for part, count in expected.items() if count} == counted


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_logits_equal_uncached_logits(family: FamilyName, batch_size: int) -> None:
    config = small(family, bias=True)
    model = GPT(config).eval()
    ids_BT = ids(batch_size, config.block_size)
    with torch.no_grad():
        whole = model(ids_BT)
        cache = KeyValueCache(config, batch_size, torch.device("cpu"), torch.float32)
        pieces = [
            model(ids_BT[:, start:end], cache) for start, end in ((0, 5), (5, 8), *((n, n + 1) for n in range(8, 12)))
        ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_position_sees_the_future(family: FamilyName) -> None:
    model = GPT(small(family)).eval()
    ids_BT = ids(1, 12)
    changed = ids_BT.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 40
    with torch.no_grad():
        before, after = model(ids_BT), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_the_gpt2_family_computes_what_transformers_gpt2_computes() -> None:
    transformers = pytest.importorskip("transformers")
    config = small(bias=True)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from their start, so that each one matters
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2, activation_function="gelu_new"
        )
    ).eval()
    names = {
        "attention_norm": "ln_1",
        "attention.query_key_value": "attn.c_attn",
        "attention.output": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
        "blocks": "transformer.h",
        "token_embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "final_norm": "transformer.ln_f",
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        linear = name.endswith(".weight") and any(part in name for part in ("query_key_value", "output", "up", "down"))
        for ours, other in names.items():
            name = name.replace(ours, other)  # noqa: PLW2901 - the name is what is being made
        weights[name] = tensor.t() if linear else tensor  # their Conv1D holds the transpose
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    theirs.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(model(ids(2, 12)), theirs(ids(2, 12)).logits, rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_of_the_losses_of_the_positions() -> None:
    model = GPT(small()).eval()
    inputs, targets = ids(3, 12), ids(3, 12).flip(0)
    expected = F.cross_entropy(model(inputs).reshape(-1, 40).double(), targets.reshape(-1))
    torch.testing.assert_close(model.loss(inputs, targets).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.losses(inputs, targets).mean().double(), expected, rtol=1e-5, atol=1e-6)


def test_an_untrained_model_is_as_unsure_as_a_fair_die() -> None:
    torch.manual_seed(0)
    model = GPT(small())
    assert abs(model.loss(ids(4, 12), ids(4, 12).flip(1)).item() - torch.log(torch.tensor(40.0)).item()) < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_one_batch_can_be_learned_by_heart(family: FamilyName) -> None:
    torch.manual_seed(0)
    model = GPT(small(family))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs, targets = ids(2, 12), ids(2, 12).roll(-1, dims=1)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model.loss(inputs, targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("n_layer", "n_embd", "batch_size"), [(2, 32, 4), (4, 64, 2)])
def test_activation_formula_counts_what_autograd_keeps(
    n_layer: int, n_embd: int, batch_size: int, dropout: float
) -> None:
    config = ModelConfig(n_layer=n_layer, n_head=2, n_embd=n_embd, block_size=64, vocab_size=16, dropout=dropout)
    model = GPT(config).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # so that no address is used twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.hidden(ids(batch_size, 64, vocab_size=16))
    hidden_bytes = hidden.untyped_storage().nbytes()
    counted = sum(kept.values()) + hidden_bytes  # the head keeps its input
    assert counted == pytest.approx(activation_bytes(config, batch_size), rel=0.05)
