"""A model's weights under the names, and in the shapes, of other programs.

ours                      transformers, GPT-2              transformers, Qwen3       GGUF
blocks.0.mlp.up.weight    transformer.h.0.mlp.c_fc.weight  model.layers.0.mlp.up_…   blk.0.ffn_up.weight
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mypt.core.model.gpt import GPT

Names = tuple[str, ...]
"""One module of theirs, or several that share one of ours: queries, keys and values."""


class Layout(NamedTuple):
    """How a program calls our modules."""

    block: str
    """What stands before the names of a block's modules, with its number."""
    modules: Mapping[str, Names]
    needs_biases: bool = False
    """Zeros stand where the model has no bias."""
    transposed: bool = False
    """Linear layers hold their matrices as inputs x outputs."""


_FUSED = "attention.query_key_value"
_ROWS_OF_IDS = ("token_embedding", "head")
_EMBEDDINGS = ("token_embedding", "position_embedding")

HF_GPT2 = Layout(
    "transformer.h.{}.",
    {
        "token_embedding": ("transformer.wte",),
        "position_embedding": ("transformer.wpe",),
        "attention_norm": ("ln_1",),
        _FUSED: ("attn.c_attn",),
        "attention.output": ("attn.c_proj",),
        "mlp_norm": ("ln_2",),
        "mlp.up": ("mlp.c_fc",),
        "mlp.down": ("mlp.c_proj",),
        "final_norm": ("transformer.ln_f",),
    },
    needs_biases=True,
    transposed=True,
)
HF_QWEN3 = Layout(
    "model.layers.{}.",
    {
        "token_embedding": ("model.embed_tokens",),
        "attention_norm": ("input_layernorm",),
        _FUSED: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.query_norm": ("self_attn.q_norm",),
        "attention.key_norm": ("self_attn.k_norm",),
        "attention.output": ("self_attn.o_proj",),
        "mlp_norm": ("post_attention_layernorm",),
        "mlp.gate": ("mlp.gate_proj",),
        "mlp.up": ("mlp.up_proj",),
        "mlp.down": ("mlp.down_proj",),
        "final_norm": ("model.norm",),
        "head": ("lm_head",),
    },
)
_GGUF = {
    "token_embedding": ("token_embd",),
    "position_embedding": ("position_embd",),
    "attention_norm": ("attn_norm",),
    "attention.query_norm": ("attn_q_norm",),
    "attention.key_norm": ("attn_k_norm",),
    "attention.output": ("attn_output",),
    "mlp_norm": ("ffn_norm",),
    "mlp.gate": ("ffn_gate",),
    "mlp.up": ("ffn_up",),
    "mlp.down": ("ffn_down",),
    "final_norm": ("output_norm",),
    "head": ("output",),
}
GGUF_GPT2 = Layout("blk.{}.", _GGUF | {_FUSED: ("attn_qkv",)}, needs_biases=True)
GGUF_QWEN3 = Layout("blk.{}.", _GGUF | {_FUSED: ("attn_q", "attn_k", "attn_v")})


def laid_out(model: GPT, layout: Layout, vocab_size: int) -> dict[str, Tensor]:
    """All weights under their names there: views, except for zeros.

    Args:
        model: whose weights.
        layout: the other program's.
        vocab_size: ids of the tokenizer; rows of the vocabulary beyond them stand for nothing, and are left out.
    """
    found: dict[str, Tensor] = {}
    weights = model.state_dict()
    for place in _places(weights, layout):
        tensor = weights[place.name]
        rows = tensor[:vocab_size] if place.module in _ROWS_OF_IDS else tensor
        sizes = model.config.query_key_value_widths if len(place.theirs) > 1 else [len(rows)]
        for name, part in zip(place.theirs, rows.split(sizes), strict=True):
            found[name] = part.t() if place.is_transposed and part.dim() > 1 else part
            if layout.needs_biases and place.module not in _EMBEDDINGS:
                found.setdefault(f"{name.rpartition('.')[0]}.bias", part.new_zeros(len(part)))
    return found


def taken(names: Iterable[str], layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round: weights by our names, in fp32.

    Args:
        names: ours, of all weights that the model has.
        layout: the other program's.
        tensors: by its names.

    Raises:
        KeyError: with the name of a tensor that is missing.
    """
    found: dict[str, Tensor] = {}
    for place in _places(names, layout):
        parts = [tensors[name].float() for name in place.theirs]
        found[place.name] = torch.cat([part.t() if place.is_transposed and part.dim() > 1 else part for part in parts])
    return found


def norm_eps(model: GPT) -> float:
    """What its norms add to a variance."""
    eps = model.final_norm.eps
    assert eps is not None, "our norms have one"
    return eps


class _Place(NamedTuple):
    """One of our weights, and where it is there."""

    name: str
    module: str
    """Its module, in a block or outside of all."""
    theirs: Names
    is_transposed: bool


def _places(names: Iterable[str], layout: Layout) -> Iterator[_Place]:
    for name in names:
        module, _, kind = name.rpartition(".")
        before = ""
        if module.startswith("blocks."):
            _, number, module = module.split(".", 2)
            before = layout.block.format(number)
        theirs = tuple(f"{before}{each}.{kind}" for each in layout.modules[module])
        yield _Place(name, module, theirs, layout.transposed and module not in _EMBEDDINGS)
