"""What transformers loads is the model that was exported."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from exporting import ARCHITECTURES, KINDS, exported, greedy, merged, published, tokenizer
from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.exchange.by_transformers import _quiet, check_by_transformers
from mypt.core.exchange.hugging_face import require_same_weights
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.byte import ByteTokenizer
from mypt.core.tokens.patterns import GPT2_PATTERN
from mypt.errors import CheckpointError, DataError, MyptError, UsageError
from mypt.records.tokenizer import ByteSpec


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "one"


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        pytest.param(kind, sizes, id=f"{kind}, {name}")
        for kind in KINDS
        for name, sizes in ARCHITECTURES.items()
        if kind in {"byte", "bpe, holes"} or name == "gpt2"
    ],
)
def test_transformers_writes_the_text_that_the_model_writes(
    directory: ModelDirectory, out: Path, kind: str, sizes: dict[str, Any]
) -> None:
    spec = tokenizer(kind)
    model = published(directory, spec, **sizes)
    event = exported(directory, out, "hf")
    assert event.largest_difference < 1e-5
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    encode: Any = transformers.AutoTokenizer.from_pretrained(out)
    prompt = encode("The river", return_tensors="pt")
    ids = build_tokenizer(spec).encode("The river").tolist()
    assert prompt["input_ids"].tolist() == [ids]
    new = 24 - len(ids)
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert theirs.generate(prompt["input_ids"], **options)[0].tolist() == greedy(model, ids, new, spec.vocab_size)
    assert theirs.config.eos_token_id == theirs.generation_config.eos_token_id == encode.eos_token_id
    assert encode.eos_token_id == build_tokenizer(spec).end_of_text_id
    assert theirs.config.vocab_size == spec.vocab_size


def test_texts_of_different_lengths_are_written_side_by_side(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, ByteSpec(), **ARCHITECTURES["modern"])
    exported(directory, out, "hf")
    encode: Any = transformers.AutoTokenizer.from_pretrained(out, padding_side="left")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    prompts = ["The river", "A", "no"]
    written = theirs.generate(**encode(prompts, padding=True, return_tensors="pt"), max_new_tokens=5, do_sample=False)
    for prompt, ids in zip(prompts, written.tolist(), strict=True):
        wanted = greedy(model, list(prompt.encode()), 5, 256)
        assert ids[-len(wanted) :] == wanted
    assert (theirs.generation_config.temperature, theirs.generation_config.top_k) == (0.8, 0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_narrow_weights_are_the_rounded_ones(directory: ModelDirectory, out: Path, family: str, precision: str) -> None:
    model = published(directory, tokenizer("byte"), **ARCHITECTURES[family])
    event = exported(directory, out, "hf", precision=precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    weights = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    name = {"gpt2": "transformer.wte.weight", "modern": "model.embed_tokens.weight"}[family]
    assert torch.equal(weights[name], model.token_embedding.weight[:257].to(dtype))
    assert event.size_bytes == sum(path.stat().st_size for path in out.iterdir())
    assert transformers.AutoModelForCausalLM.from_pretrained(out).dtype == dtype


def test_a_single_changed_number_is_noticed(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, ByteSpec(), **ARCHITECTURES["modern, grouped"])
    exported(directory, out, "hf")
    path = out / "model.safetensors"
    whole = load_file(path)
    for name, tensor in whole.items():
        changed = tensor.clone()
        changed.view(-1)[len(changed) // 2] += 1e-6
        save_file(whole | {name: changed}, path, metadata={"format": "pt"})
        with pytest.raises(MyptError, match=f"{name}: not what was written"):
            require_same_weights(out, model, 257)
    save_file(whole | {"more": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(MyptError, match="more: not what was written"):
        require_same_weights(out, model, 257)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MyptError, match=r"model.safetensors: not what was written"):
        require_same_weights(out, model, 257)


@pytest.mark.parametrize("key", ["rms_norm_eps", "num_key_value_heads", "head_dim", "rope_parameters", "hidden_act"])
def test_another_setting_is_noticed(directory: ModelDirectory, out: Path, key: str) -> None:
    model = published(directory, ByteSpec(), **ARCHITECTURES["modern, grouped"])
    exported(directory, out, "hf")
    path = out / "config.json"
    others = {
        "rms_norm_eps": 0.1, "num_key_value_heads": 3, "head_dim": 8, "hidden_act": "gelu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
    }  # fmt: skip
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: others[key]}))
    with pytest.raises(MyptError, match=r"computes other logits, by up to|cannot load it"):
        check_by_transformers(out, model, ByteTokenizer())


def test_transformers_is_as_it_was_and_so_is_the_environment(directory: ModelDirectory, out: Path) -> None:
    published(directory, ByteSpec(), **ARCHITECTURES["gpt2"])
    before = dict(os.environ), logging.get_verbosity(), logging.is_progress_bar_enabled()
    exported(directory, out, "hf")
    with pytest.raises(ZeroDivisionError), _quiet():
        raise ZeroDivisionError
    assert (dict(os.environ), logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_changed_tokenizer_is_noticed(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, spec := tokenizer("bpe"), **ARCHITECTURES["gpt2"])
    exported(directory, out, "hf")
    path = out / "tokenizer.json"
    content = json.loads(path.read_text())
    merges = content["model"]["merges"]
    content["model"]["merges"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(MyptError, match="gives other ids for"):
        check_by_transformers(out, model, build_tokenizer(spec))
    content["model"]["merges"] = merges
    content["decoder"] = None
    path.write_text(json.dumps(content))
    with pytest.raises(MyptError, match="gives another text for the ids of"):
        check_by_transformers(out, model, build_tokenizer(spec))


def test_nothing_is_left_of_an_export_that_fails(
    directory: ModelDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(directory, tokenizer("byte"), **ARCHITECTURES["gpt2"])
    monkeypatch.setattr("mypt.core.exchange.by_transformers._TOLERANCE", -1.0)
    with pytest.raises(MyptError, match="computes other logits"):
        exported(directory, out, "hf")
    assert list(out.parent.iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(directory: ModelDirectory, out: Path) -> None:
    published(directory, tokenizer("byte"), **ARCHITECTURES["gpt2"])
    out.mkdir(parents=True)
    with pytest.raises(DataError, match="already there"):
        exported(directory, out, "hf")
    assert list(out.iterdir()) == []


def test_a_link_to_nowhere_is_a_name_that_is_taken(directory: ModelDirectory, out: Path) -> None:
    published(directory, ByteSpec(), **ARCHITECTURES["gpt2"])
    out.parent.mkdir(parents=True)
    out.symlink_to("nowhere")
    with pytest.raises(DataError, match="already there"):
        exported(directory, out, "hf")
    assert out.is_symlink()


def test_a_name_that_is_taken_meanwhile_is_left_alone(
    directory: ModelDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(directory, ByteSpec(), **ARCHITECTURES["gpt2"])

    def another_comes(_: object) -> ByteTokenizer:
        out.mkdir(parents=True)
        return ByteTokenizer()

    monkeypatch.setattr("mypt.core.exchange.export.build_tokenizer", another_comes)
    with pytest.raises(DataError, match="already there"):
        exported(directory, out, "hf")
    assert list(out.parent.iterdir()) == [out]
    assert list(out.iterdir()) == []


def test_a_special_token_that_is_called_as_a_piece_is_refused(directory: ModelDirectory, out: Path) -> None:
    published(directory, merged(300, GPT2_PATTERN, {"a": 300}, "a"), **ARCHITECTURES["gpt2"])
    with pytest.raises(DataError, match="'a' is a piece and a special token"):
        exported(directory, out, "hf")


def test_what_no_other_program_knows_is_refused(directory: ModelDirectory, out: Path) -> None:
    published(directory, tokenizer("byte"), family="mypt-v1", n_head=2, n_embd=16)
    with pytest.raises(CheckpointError, match="family mypt-v1 is known to no other program"):
        exported(directory, out, "hf")
    assert not out.parent.exists()


def test_numbers_too_large_for_fp16_are_refused(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, spec := tokenizer("byte"), **ARCHITECTURES["gpt2"])
    training = next(iter(directory.states())).training()
    with torch.no_grad():
        model.token_embedding.weight[3, 3] = 1e6
    directory.publish(Contents(model.config, spec, training.model_copy(update={"step": 6}), weights_of(model)))
    with pytest.raises(UsageError, match=r"token_embedding\.weight: has numbers too large for fp16"):
        exported(directory, out, "hf", precision="fp16")
    assert exported(directory, out, "hf", precision="bf16").step == 6
