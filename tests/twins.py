"""The same weights in transformers, where it is installed: another program's truth.

It has its own table of names: what is exported is another law, and must not decide this one.
"""

from typing import Any

import pytest

from mypt.core.model.gpt import GPT

_NAMES = {
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
_LINEAR = ("query_key_value", "output", "up", "down")


def gpt2_twin(model: GPT) -> Any:
    """A GPT2LMHeadModel with the weights of a model of family gpt2 with biases; else the test is skipped."""
    transformers = pytest.importorskip("transformers")
    config = model.config
    twin = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.block_size, n_embd=config.n_embd, n_layer=config.n_layer,
            n_head=config.n_head, activation_function="gelu_new", bos_token_id=None, eos_token_id=None,
        )
    ).eval()  # fmt: skip
    weights = {}
    for name, tensor in model.state_dict().items():
        is_linear = name.endswith(".weight") and any(part in name for part in _LINEAR)
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901 - the name is what is being made
        weights[name] = tensor.t() if is_linear else tensor  # their Conv1D holds the transpose
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    twin.load_state_dict(weights)
    return twin
