"""Models to export, whose weights are all away from where they begin."""

import random
from pathlib import Path
from typing import Any

import torch

from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.exchange.export import export_model
from mypt.core.exchange.llama_cpp_child import _server
from mypt.core.model.gpt import GPT
from mypt.core.tokens.patterns import GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN
from mypt.events import Exported
from mypt.records.checkpoint import TrainingState
from mypt.records.export import ExportConfig, Questions
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


def merged(
    pieces: int, pattern: str, specials: dict[str, int], end: str | None, unmergeable: tuple[bytes, ...] = ()
) -> BpeSpec:
    """A table whose merges are drawn by chance among those that join parts of words; and pieces that no merge makes."""
    chance = random.Random(5)
    table = [bytes([byte]) for byte in range(256)]
    known = set(table)
    common = [piece for piece in table if piece.isalpha() or piece in b" \n\xc3\xaf"]
    while len(table) < pieces:
        made = chance.choice(common) + chance.choice(common)
        if made not in known:
            known.add(made)
            table.append(made)
            common.append(made)
    return BpeSpec.of(pattern, [*table, *unmergeable], specials, end)


def tokenizer(kind: str) -> TokenizerSpec:
    """One of each kind."""
    if kind == "char":
        return CharSpec(chars=tuple(sorted(set(tale(900)))))
    if kind == "byte":
        return ByteSpec()
    if kind == "gpt2":
        return Gpt2Spec()
    if kind == "bpe":
        return merged(400, GPT2_PATTERN, {"<|endoftext|>": 400}, "<|endoftext|>")
    if kind == "bpe, holes":
        # Special tokens between the pieces, ids that nothing has, and an end that is none of them.
        return merged(350, QWEN2_PATTERN, {"<|a|>": 0, "<|b|>": 300, "<|c|>": 360}, None)
    return merged(400, LLAMA3_PATTERN, {"<|end|>": 403}, "<|end|>", (b"river", b" naive", b"the"))


KINDS = ("char", "byte", "gpt2", "bpe", "bpe, holes", "bpe, whole words")


def published(directory: ModelDirectory, spec: TokenizerSpec, padding: int = 7, **sizes: Any) -> GPT:
    """Save a model of two layers with some rows of its vocabulary that no token has; and give it."""
    usual: dict[str, Any] = {"n_layer": 2, "block_size": 24, "vocab_size": spec.vocab_size + padding}
    torch.manual_seed(15)  # of some seeds the one whose likeliest tokens are furthest ahead of the next ones
    model = stirred(GPT(ModelConfig(**(usual | sizes))))
    training = TrainingState(
        model_name=directory.name, step=5, samples_seen=5, training=TrainingConfig(), data=DataConfig()
    )
    directory.publish(Contents(model.config, spec, training, weights_of(model)))
    return model


def exported(directory: ModelDirectory, out: Path, to: str, **settings: Any) -> Exported:
    """Export the model, and give what was told."""
    (*_, event) = export_model(directory, out, ExportConfig.parse({"to": to, **settings}, where="test"))
    assert isinstance(event, Exported)
    return event


def llama_cpp(path: Path) -> Any:
    """llama.cpp with a file, in this process."""
    return _server(Questions(path=str(path), context_tokens=24, texts=(), prompts=(), likeliest=1, whole=0))


def greedy(model: GPT, ids: list[int], new: int, vocab_size: int) -> list[int]:
    """The likeliest tokens after some, one by one, each from all before it."""
    for _ in range(new):
        with torch.inference_mode():
            ids = [*ids, int(model(torch.tensor([ids]))[0, -1, :vocab_size].argmax())]
    return ids
