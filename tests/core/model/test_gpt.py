"""The model against its closed form, against itself with a cache, and against transformers."""

import math
import re
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.checkpoint.snapshot import parameter_names
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.records.memory import StepShape
from mypt.records.model import FamilyName, ModelConfig
from mypt.records.presets import load_preset, preset_names
from support import stirred
from twins import gpt2_twin


def small(family: FamilyName = "gpt2", **changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "vocab_size": 40}
    return ModelConfig(family=family, **(sizes | changes))


ARCHITECTURES = {
    "gpt2": small(),
    "gpt2, biased": small(bias=True),
    "mypt-v1": small("mypt-v1"),
    "mypt-v1, biased": small("mypt-v1", bias=True),
    "modern": small("modern"),
    "modern, grouped": small("modern", n_head=4, n_kv_head=2, n_inner=24, rope_base=100.0),
    "modern, one key": small("modern", n_head=4, n_kv_head=1, n_embd=24),
}
each_architecture = pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES)


def ids(*shape: int, vocab_size: int = 40) -> torch.Tensor:
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", preset_names())
def test_formula_counts_what_torch_counts_for_every_preset(name: str) -> None:
    config = load_preset(name).model
    with torch.device("meta"):
        model = GPT(config)
    assert config.parameters == sum(parameter.numel() for parameter in model.parameters())


@each_architecture
def test_formula_counts_each_part(config: ModelConfig) -> None:
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
@each_architecture
def test_cached_logits_equal_uncached_logits(config: ModelConfig, batch_size: int) -> None:
    model = stirred(GPT(config))
    ids_BT = ids(batch_size, config.block_size)
    with torch.no_grad():
        whole = model(ids_BT)
        cache = KeyValueCache(config, batch_size, config.block_size, torch.device("cpu")).rows(0, batch_size)
        pieces = [
            model(ids_BT[:, start:end], cache) for start, end in ((0, 5), (5, 8), *((n, n + 1) for n in range(8, 12)))
        ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-6)


@each_architecture
def test_no_position_sees_the_future(config: ModelConfig) -> None:
    model = stirred(GPT(config))
    ids_BT = ids(1, 12)
    changed = ids_BT.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 40
    with torch.no_grad():
        before, after = model(ids_BT), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_the_gpt2_family_computes_what_transformers_gpt2_computes() -> None:
    model = stirred(GPT(small(bias=True)))
    theirs = gpt2_twin(model)
    with torch.no_grad():
        torch.testing.assert_close(model(ids(2, 12)), theirs(ids(2, 12)).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        small("modern"),
        small("modern", n_head=4, n_kv_head=2, n_inner=24, rope_base=1000.0),
        small("modern", n_layer=3, n_head=6, n_kv_head=1, n_embd=48, block_size=200, rope_base=1e6),
        small("modern", n_layer=1, n_head=1, n_embd=64, block_size=33, vocab_size=300),
    ],
    ids=["plain", "grouped", "one key, far", "one head"],
)
def test_the_modern_family_computes_what_transformers_qwen3_computes(config: ModelConfig) -> None:
    transformers = pytest.importorskip("transformers")
    model = stirred(GPT(config))
    theirs = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=config.vocab_size, max_position_embeddings=config.block_size, hidden_size=config.n_embd,
            intermediate_size=config.inner_width, num_hidden_layers=config.n_layer, num_attention_heads=config.n_head,
            num_key_value_heads=config.kv_heads, head_dim=config.head_width, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
        )
    ).eval()  # fmt: skip
    theirs.load_state_dict(as_qwen3(model), strict=True)
    asked = ids(2, config.block_size, vocab_size=config.vocab_size)
    with torch.no_grad():
        torch.testing.assert_close(model(asked), theirs(asked).logits, rtol=1e-4, atol=1e-5)


def as_qwen3(model: GPT) -> dict[str, torch.Tensor]:
    names = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        "attention.output": "self_attn.o_proj",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
        "blocks": "model.layers",
        "token_embedding": "model.embed_tokens",
        "final_norm": "model.norm",
        "head": "lm_head",
    }
    config, weights = model.config, dict[str, torch.Tensor]()
    for name, tensor in model.state_dict().items():
        for ours, other in names.items():
            name = re.sub(rf"(^|\.){ours}\.", rf"\1{other}.", name)  # noqa: PLW2901 - the name is what is being made
        if "query_key_value" in name:
            parts = tensor.split([config.n_embd, config.kv_width, config.kv_width])
            for part, letter in zip(parts, "qkv", strict=True):
                weights[name.replace("attention.query_key_value", f"self_attn.{letter}_proj")] = part
        else:
            weights[name] = tensor
    return weights


def test_rotary_positions_are_as_exact_in_a_model_cast_to_bf16() -> None:
    """Angles of hundreds, rounded to eight bits, would be any angle."""
    model = stirred(GPT(small("modern", block_size=600)))
    asked = ids(1, 600)
    with torch.no_grad():
        exact = model(asked)
        cast = model.to(torch.bfloat16)(asked)
    assert cast.dtype == torch.bfloat16
    torch.testing.assert_close(cast[:, -50:].float(), exact[:, -50:], rtol=0.0, atol=0.03 * exact.abs().max().item())


def test_loss_is_the_mean_of_the_losses_of_the_positions() -> None:
    model = GPT(small()).eval()
    inputs, targets = ids(3, 12), ids(3, 12).flip(0)
    expected = F.cross_entropy(model(inputs).reshape(-1, 40).double(), targets.reshape(-1))
    torch.testing.assert_close(model.loss(inputs, targets).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.scores(inputs, targets).losses_N.mean().double(), expected, rtol=1e-5, atol=1e-6)


@each_architecture
def test_an_untrained_model_is_as_unsure_as_a_fair_die(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = GPT(config)
    assert abs(model.loss(ids(4, 12), ids(4, 12).flip(1)).item() - math.log(40)) < 0.1


@each_architecture
def test_one_batch_can_be_learned_by_heart(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = GPT(config)
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
@pytest.mark.parametrize(
    "shape", [{}, {"family": "modern"}, {"family": "modern", "n_head": 4, "n_kv_head": 1}], ids=str
)
def test_activation_formula_counts_what_autograd_keeps(
    shape: dict[str, Any], n_layer: int, n_embd: int, batch_size: int, dropout: float
) -> None:
    sizes: dict[str, Any] = {"n_layer": n_layer, "n_embd": n_embd, "block_size": 64, "vocab_size": 16}
    config = small(dropout=dropout, **(shape | sizes))
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
    assert counted == pytest.approx(StepShape(model=config, batch_size=batch_size).activation_bytes, rel=0.05)
