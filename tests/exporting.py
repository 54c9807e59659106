"""Models to export, whose weights are all away from where they begin."""

import random
from typing import Any

import torch

from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.records.checkpoint import TrainingState
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, TrainingConfig
from mypt.records.tokenizer import BpeSpec, ByteSpec, CharSpec, Gpt2Spec, TokenizerSpec
from support import stirred, tale

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_head": 2, "n_embd": 32},
    "gpt2, biased": {"n_head": 4, "n_embd": 32, "bias": True},
    "modern": {"family": "modern", "n_head": 2, "n_embd": 32},
    "modern, grouped": {"family": "modern", "n_head": 6, "n_kv_head": 2, "n_embd": 96, "n_inner": 96, "rope_base": 1e4},
}


def merged(pieces: int, pattern: str, specials: dict[str, int], end: str | None) -> BpeSpec:
    """A table whose merges are drawn by chance among those that join letters of words."""
    chance = random.Random(5)
    table = [bytes([byte]) for byte in range(256)]
    known = set(table)
    common = [piece for piece in table if piece.isalpha() or piece in b" \n\xc3\xaf"]
    while len(table) < pieces:
        made = chance.choice(common) + chance.choice(common)
        if made not in known:
            known.add(made)
            table.append(made)
    return BpeSpec.of(pattern, table, specials, end)


def tokenizer(kind: str) -> TokenizerSpec:
    """One of each kind."""
    from mypt.core.tokens.patterns import GPT2_PATTERN, QWEN2_PATTERN

    if kind == "char":
        return CharSpec(chars=tuple(sorted(set(tale(900)))))
    if kind == "byte":
        return ByteSpec()
    if kind == "gpt2":
        return Gpt2Spec()
    if kind == "bpe":
        return merged(400, GPT2_PATTERN, {"<|endoftext|>": 400}, "<|endoftext|>")
    # Special tokens between the pieces, and an end that is none of them.
    return merged(350, QWEN2_PATTERN, {"<|a|>": 0, "<|b|>": 300, "<|c|>": 352}, None)


KINDS = ("char", "byte", "gpt2", "bpe", "bpe, odd")


def published(directory: ModelDirectory, spec: TokenizerSpec, padding: int = 7, **sizes: Any) -> GPT:
    """Save a model of two layers with some rows of its vocabulary that no token has; and give it."""
    usual: dict[str, Any] = {"n_layer": 2, "block_size": 24, "vocab_size": spec.vocab_size + padding}
    model = stirred(GPT(ModelConfig(**(usual | sizes))))
    training = TrainingState(
        model_name=directory.name, step=5, samples_seen=5, training=TrainingConfig(), data=DataConfig()
    )
    directory.publish(Contents(model.config, spec, training, weights_of(model)))
    return model


def greedy(model: GPT, ids: list[int], new: int, vocab_size: int) -> list[int]:
    """The likeliest tokens after some, one by one, each from all before it."""
    for _ in range(new):
        with torch.inference_mode():
            ids = [*ids, int(model(torch.tensor([ids]))[0, -1, :vocab_size].argmax())]
    return ids
