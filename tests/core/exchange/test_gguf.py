"""What llama.cpp runs is the model that was exported."""

from pathlib import Path
from typing import Any

import pytest
import torch

from exporting import ARCHITECTURES, KINDS, exported, greedy, llama_cpp, merged, published, tokenizer
from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.exchange.by_llama_cpp import check_by_llama_cpp
from mypt.core.exchange.gguf import require_same_weights
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.byte import ByteTokenizer
from mypt.core.tokens.exported import as_hugging_face
from mypt.core.tokens.patterns import CL100K_PATTERN, GPT2_PATTERN
from mypt.errors import DataError, MyptError
from mypt.records.hugging_face import TokenizerFile
from mypt.records.tokenizer import ByteSpec, CharSpec, TokenizerSpec

pytest.importorskip("xllamacpp")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "one.gguf"


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        pytest.param(kind, sizes, id=f"{kind}, {name}")
        for kind in KINDS
        for name, sizes in ARCHITECTURES.items()
        if kind in {"byte", "char"} or name == "modern"
    ],
)
def test_llama_cpp_writes_the_text_that_the_model_writes(
    directory: ModelDirectory, out: Path, kind: str, sizes: dict[str, Any]
) -> None:
    model = published(directory, spec := tokenizer(kind), **sizes)
    # For GELU llama.cpp has a table in fp16.
    assert exported(directory, out, "gguf").largest_difference < (1e-4 if model.config.traits.rotary else 5e-3)
    ours, server = build_tokenizer(spec), llama_cpp(out)
    prompt = "The river"
    ids = ours.encode(prompt).tolist()
    (choice,) = server.handle_completions(
        {"prompt": prompt, "temperature": 0, "n_predict": 23 - len(ids), "ignore_eos": True}
    )["choices"]
    wanted = greedy(model, ids, 23 - len(ids), spec.vocab_size)[len(ids) :]
    text = b"".join(map(ours.decode_bytes, wanted)).decode("utf-8", errors="ignore")
    assert "".join(each for each in choice["text"] if each != "\ufffd") == text.replace("\ufffd", "")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["gpt2, biased", "modern, grouped"])
def test_narrow_weights_are_the_rounded_ones(directory: ModelDirectory, out: Path, family: str, precision: str) -> None:
    import gguf

    model = published(directory, ByteSpec(), **ARCHITECTURES[family])
    exported(directory, out, "gguf", precision=precision)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    wanted = model.token_embedding.weight[:257].to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    assert found["token_embd.weight"].data.tobytes() == wanted.contiguous().view(torch.uint8).numpy().tobytes()
    assert {each.tensor_type.name for each in found.values()} == {{"bf16": "BF16", "fp16": "F16"}[precision], "F32"}


def test_a_single_changed_bit_is_noticed(directory: ModelDirectory, out: Path) -> None:
    import gguf

    model = published(directory, ByteSpec(), **ARCHITECTURES["modern, grouped"])
    exported(directory, out, "gguf")
    whole = out.read_bytes()
    for tensor in gguf.GGUFReader(out).tensors:
        changed = bytearray(whole)
        changed[tensor.data_offset + tensor.n_bytes // 2] ^= 1
        out.write_bytes(changed)
        with pytest.raises(MyptError, match=f"{tensor.name}: not what was written"):
            require_same_weights(out, model, 257)


@pytest.mark.parametrize("key", ["attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base"])
def test_another_setting_is_noticed(directory: ModelDirectory, out: Path, key: str) -> None:
    import gguf

    model = published(directory, ByteSpec(), **ARCHITECTURES["modern, grouped"])
    exported(directory, out, "gguf")
    field = gguf.GGUFReader(out, "r+").fields[f"qwen3.{key}"]
    field.parts[field.data[0]][0] = {"attention.head_count_kv": 3}.get(key, 0.5)
    with pytest.raises(MyptError, match=r"gives other probabilities, by up to|cannot load it"):
        check_by_llama_cpp(out, model, ByteTokenizer())


def test_a_tokenizer_that_reads_or_writes_something_else_is_noticed(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, spec := tokenizer("char"), **ARCHITECTURES["modern"])
    assert isinstance(spec, CharSpec)
    exported(directory, out, "gguf")
    swapped = spec.model_copy(update={"chars": (*spec.chars[:5], spec.chars[6], spec.chars[5], *spec.chars[7:])})
    with pytest.raises(MyptError, match=r"llama.cpp \(.*\) gives other ids for"):
        check_by_llama_cpp(out, model, build_tokenizer(swapped))


def test_no_merges_is_another_tokenizer(directory: ModelDirectory, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(directory, tokenizer("bpe"), **ARCHITECTURES["gpt2"])

    def without_merges(spec: TokenizerSpec) -> TokenizerFile:
        whole = as_hugging_face(spec)
        return whole.model_copy(update={"model": whole.model.model_copy(update={"merges": ()})})

    monkeypatch.setattr("mypt.core.exchange.gguf.as_hugging_face", without_merges)
    with pytest.raises(MyptError, match=r"llama.cpp \(.*\) gives other ids for"):
        exported(directory, out, "gguf")
    assert list(out.parent.iterdir()) == []


def test_what_ends_llama_cpp_is_one_message_and_leaves_nothing(directory: ModelDirectory, out: Path) -> None:
    published(directory, ByteSpec(), n_head=16, n_embd=16)
    with pytest.raises(MyptError, match=r"llama.cpp cannot load it \(.*GGML_ASSERT"):
        exported(directory, out, "gguf")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (merged(300, CL100K_PATTERN, {"<|end|>": 300}, "<|end|>"), "does not know how this tokenizer cuts"),
        (merged(300, GPT2_PATTERN, {}, None), "needs a special token"),
        (merged(300, GPT2_PATTERN, {"<|end|>": 301}, "<|end|>", (b"river",)), "pieces that no merge makes"),
        (merged(300, GPT2_PATTERN, {"[unused300]": 301}, "[unused300]"), "two of these have one"),
    ],
    ids=["pattern", "no end", "whole words", "two names"],
)
def test_what_llama_cpp_does_not_know_is_refused(
    directory: ModelDirectory, out: Path, spec: TokenizerSpec, reason: str
) -> None:
    published(directory, spec, **ARCHITECTURES["gpt2"])
    with pytest.raises(DataError, match=reason):
        exported(directory, out, "gguf")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    "spec",
    [
        CharSpec(chars=tuple("\t\n\r !\"'\\abnrtx0é日\u2028👩\u0301\0\x7f\x85▁")),
        CharSpec(chars=tuple("日本")),
        CharSpec(chars=tuple(". !")),
        CharSpec(chars=("a",)),
    ],
    ids=["odd", "not ASCII", "no letter", "one"],
)
def test_odd_alphabets_come_back(directory: ModelDirectory, out: Path, spec: CharSpec) -> None:
    published(directory, spec, **ARCHITECTURES["modern"])
    assert exported(directory, out, "gguf").largest_difference < 1e-4


def test_bytes_that_stand_twice_are_two(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, ByteSpec(), **ARCHITECTURES["modern"])
    exported(directory, out, "gguf")
    for byte in (0, 1, 9, 10, 32, 97, 127):
        prompt = bytes([97, byte, byte, byte, 98]).decode()
        told = llama_cpp(out).handle_completions({"prompt": prompt, "n_predict": 1, "cache_prompt": False})
        assert told["usage"]["prompt_tokens"] == 5
    assert model.config.vocab_size == 264


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_model_that_is_sure_of_itself_is_exported_and_one_without_numbers_is_not(
    directory: ModelDirectory, out: Path, to: str
) -> None:
    model = published(directory, ByteSpec(), **ARCHITECTURES["gpt2"])
    training = directory.states()[0].training()
    for step, size in ((6, 1e6), (7, 3e38)):
        with torch.no_grad():
            model.final_norm.weight.fill_(size)
        weights, later = weights_of(model), training.model_copy(update={"step": step})
        directory.publish(Contents(model.config, ByteSpec(), later, weights))
        if step == 6:
            assert exported(directory, out, to).step == 6
        else:
            with pytest.raises(MyptError, match="the model itself computes what is no number"):
                exported(directory, out.with_name("second"), to)
