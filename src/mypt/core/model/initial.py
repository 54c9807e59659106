"""The weights a model begins with."""

import math

from torch import nn

from mypt.records.model import ModelConfig

_GPT2_STD = 0.02
_ATTENTION_SCALE = 0.12
_HEAD_STD = 0.001


def initialize(model: nn.Module, config: ModelConfig) -> None:
    """Draw the first weights as the family does; norms are born as ones."""
    if config.family == "modern":
        _initialize_modern(model, config)
    else:
        _initialize_gpt2(model, config)


def _initialize_gpt2(model: nn.Module, config: ModelConfig) -> None:
    """GPT-2's initialization: normal 0.02, smaller where branches join the residual stream."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=_GPT2_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, weight in model.named_parameters():
        if name.endswith((".output.weight", ".down.weight")):
            nn.init.normal_(weight, std=_GPT2_STD / math.sqrt(2 * config.n_layer))


def _initialize_modern(model: nn.Module, config: ModelConfig) -> None:
    """Every branch begins silent, and the output without an opinion.

    What reads the normed residual stream is uniform with standard deviation C^-0.5, so what comes out
    is of size one, as what goes in; what joins the stream is zero. The embedding's numbers are of size
    one too, and free to leave it: rows that are normed on use would be another architecture.
    """
    bound = math.sqrt(3 / config.n_embd)
    # Attention divides products by the root of the head width; with these norms it multiplies by 0.12 instead.
    head_norm = math.sqrt(_ATTENTION_SCALE * math.sqrt(config.head_width))
    for name, weight in model.named_parameters():
        match name.split(".")[-2]:
            case "token_embedding":
                nn.init.normal_(weight)
            case "query_key_value" | "gate" | "up":
                nn.init.uniform_(weight, -bound, bound)
            case "output" | "down":
                nn.init.zeros_(weight)
            case "query_norm" | "key_norm":
                nn.init.constant_(weight, head_norm)
            case "head":
                nn.init.normal_(weight, std=_HEAD_STD)
