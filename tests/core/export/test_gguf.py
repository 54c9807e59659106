"""What llama.cpp runs is the model that was exported."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from exporting import ARCHITECTURES, KINDS, greedy, merged, published, tokenizer
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.export.by_llama_cpp import _answer, _server, check_by_llama_cpp, open_llama_cpp
from mypt.core.export.verb import export_model
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.byte import ByteTokenizer
from mypt.core.tokens.patterns import CL100K_PATTERN, GPT2_PATTERN
from mypt.errors import DataError, MyptError
from mypt.events import Exported
from mypt.records.export import ExportConfig
from mypt.records.tokenizer import ByteSpec, CharSpec, TokenizerSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="llama.cpp is tested on Linux")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "one.gguf"


def exported(directory: ModelDirectory, out: Path, **settings: Any) -> Exported:
    (*_, event) = export_model(directory, out, ExportConfig(to="gguf", **settings))
    assert isinstance(event, Exported)
    return event


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
    assert exported(directory, out).largest_difference < (1e-4 if model.config.traits.rotary else 5e-3)
    ours, server = build_tokenizer(spec), _server(open_llama_cpp(), out, 24)
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
    exported(directory, out, precision=precision)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    wanted = model.token_embedding.weight[:257].to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    assert found["token_embd.weight"].data.tobytes() == wanted.contiguous().view(torch.uint8).numpy().tobytes()
    assert {each.tensor_type.name for each in found.values()} == {{"bf16": "BF16", "fp16": "F16"}[precision], "F32"}


def test_a_changed_number_is_noticed(directory: ModelDirectory, out: Path) -> None:
    import gguf

    model = published(directory, ByteSpec(), **ARCHITECTURES["modern, grouped"])
    exported(directory, out)
    whole = out.read_bytes()
    for tensor in gguf.GGUFReader(out).tensors:
        changed, numbers = bytearray(whole), tensor.data.copy().view("float32")
        numbers *= -2  # the size of queries and keys is normed away
        changed[tensor.data_offset : tensor.data_offset + tensor.n_bytes] = numbers.tobytes()
        out.write_bytes(changed)
        with pytest.raises(MyptError, match="says something else after"):
            check_by_llama_cpp(out, model, ByteTokenizer())
    out.write_bytes(whole[:2000])
    with pytest.raises(MyptError, match=r"llama.cpp cannot load the export"):
        check_by_llama_cpp(out, model, ByteTokenizer())


def test_a_tokenizer_that_reads_or_writes_something_else_is_noticed(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, spec := tokenizer("char"), **ARCHITECTURES["modern"])
    assert isinstance(spec, CharSpec)
    exported(directory, out)
    swapped = spec.model_copy(update={"chars": (*spec.chars[:5], spec.chars[6], spec.chars[5], *spec.chars[7:])})
    with pytest.raises(MyptError, match=r"llama.cpp \(.*\) (says something else after|writes)"):
        check_by_llama_cpp(out, model, build_tokenizer(swapped))
    more = spec.model_copy(update={"chars": (*spec.chars[:-1], "ß")})
    with pytest.raises(MyptError, match=r"llama.cpp \(.*\) (reads other tokens in 'ß'|writes b'.*' for the token 3\d)"):
        check_by_llama_cpp(out, model, build_tokenizer(more))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (merged(300, CL100K_PATTERN, {"<|end|>": 300}, "<|end|>"), "does not know how this tokenizer cuts"),
        (merged(300, GPT2_PATTERN, {}, None), "needs a special token"),
    ],
    ids=["pattern", "no end"],
)
def test_what_llama_cpp_does_not_know_is_refused(
    directory: ModelDirectory, out: Path, spec: TokenizerSpec, reason: str
) -> None:
    published(directory, spec, **ARCHITECTURES["gpt2"])
    with pytest.raises(DataError, match=reason):
        exported(directory, out)
    assert list(out.parent.iterdir()) == []


def test_characters_that_gguf_writes_in_another_way_come_back(directory: ModelDirectory, out: Path) -> None:
    spec = CharSpec(chars=tuple("\t\n\r !\"'\\abnrtx0é日\u2028👩\u0301\0\x7f\x85"))
    published(directory, spec, **ARCHITECTURES["modern"])
    exported(directory, out)
    answer = _answer(_server(open_llama_cpp(), out, 24), "a\\n\n\\\\\tx00", written=3)
    assert answer is not None
    assert answer.prompt_tokens == 10
