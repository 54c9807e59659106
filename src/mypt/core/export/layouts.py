"""A model's weights under the names, and in the shapes, of other programs.

ours                      transformers, GPT-2              transformers, Qwen3       GGUF
blocks.0.mlp.up.weight    transformer.h.0.mlp.c_fc.weight  model.layers.0.mlp.up_…   blk.0.ffn_up.weight
"""

from collections.abc import Mapping
from typing import NamedTuple

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
    """All weights under their names: views, except for zeros.

    Args:
        model: whose weights.
        layout: the other program's.
        vocab_size: ids of the tokenizer; rows of the vocabulary beyond them stand for nothing, and are left out.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        before, module = _split(module, layout)
        rows = tensor[:vocab_size] if module in _ROWS_OF_IDS else tensor
        is_transposed = layout.transposed and rows.dim() > 1 and module not in _EMBEDDINGS
        theirs = layout.modules[module]
        sizes = model.config.query_key_value_widths if len(theirs) > 1 else [len(rows)]
        for each, part in zip(theirs, rows.split(sizes), strict=True):
            found[f"{before}{each}.{kind}"] = part.t() if is_transposed else part
            if layout.needs_biases and module not in _EMBEDDINGS:
                found.setdefault(f"{before}{each}.bias", part.new_zeros(len(part)))
    return found


def norm_eps(model: GPT) -> float:
    """What its norms add to a variance."""
    eps = model.final_norm.eps
    assert eps is not None, "our norms have one"
    return eps


def _split(module: str, layout: Layout) -> tuple[str, str]:
    """What stands before its name there, and our name of it in a block."""
    if not module.startswith("blocks."):
        return "", module
    _, number, module = module.split(".", 2)
    return layout.block.format(number), module
