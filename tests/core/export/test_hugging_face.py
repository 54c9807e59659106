"""What transformers loads is the model that was exported."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporting import ARCHITECTURES, KINDS, greedy, published, tokenizer
from mypt.core.checkpoint.snapshot import Contents, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.export.by_transformers import check_by_transformers, open_transformers
from mypt.core.export.verb import export_model
from mypt.core.tokens.build import build_tokenizer
from mypt.core.tokens.byte import ByteTokenizer
from mypt.errors import CheckpointError, DataError, MyptError, UsageError
from mypt.events import Exported
from mypt.records.export import ExportConfig
from mypt.records.tokenizer import ByteSpec


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "one"


def exported(directory: ModelDirectory, out: Path, **settings: Any) -> Exported:
    (*_, event) = export_model(directory, out, ExportConfig(**settings))
    assert isinstance(event, Exported)
    return event


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        pytest.param(kind, sizes, id=f"{kind}, {name}")
        for kind in KINDS
        for name, sizes in ARCHITECTURES.items()
        if kind in {"byte", "bpe, odd"} or name == "gpt2"
    ],
)
def test_transformers_writes_the_text_that_the_model_writes(
    directory: ModelDirectory, out: Path, kind: str, sizes: dict[str, Any]
) -> None:
    spec = tokenizer(kind)
    model = published(directory, spec, **sizes)
    event = exported(directory, out)
    assert event.largest_difference < 1e-5
    transformers = open_transformers()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    encode = transformers.AutoTokenizer.from_pretrained(out)
    prompt = encode("The river", return_tensors="pt", add_special_tokens=False)
    ids = build_tokenizer(spec).encode("The river").tolist()
    assert prompt["input_ids"].tolist() == [ids]
    new = 24 - len(ids)
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert theirs.generate(prompt["input_ids"], **options)[0].tolist() == greedy(model, ids, new, spec.vocab_size)
    assert theirs.config.eos_token_id == theirs.generation_config.eos_token_id == encode.eos_token_id
    assert encode.eos_token_id == build_tokenizer(spec).end_of_text_id
    assert theirs.config.vocab_size == spec.vocab_size


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_narrow_weights_are_the_rounded_ones(directory: ModelDirectory, out: Path, family: str, precision: str) -> None:
    model = published(directory, tokenizer("byte"), **ARCHITECTURES[family])
    event = exported(directory, out, precision=precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    weights = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    name = {"gpt2": "transformer.wte.weight", "modern": "model.embed_tokens.weight"}[family]
    assert torch.equal(weights[name], model.token_embedding.weight[:257].to(dtype))
    assert event.size_bytes == sum(path.stat().st_size for path in out.iterdir())
    assert open_transformers().AutoModelForCausalLM.from_pretrained(out).dtype == dtype


def test_a_changed_number_is_noticed(directory: ModelDirectory, out: Path) -> None:
    model, theirs = published(directory, ByteSpec(), **ARCHITECTURES["modern, grouped"]), ByteTokenizer()
    exported(directory, out)
    path = out / "model.safetensors"
    whole = load_file(path)
    assert check_by_transformers(out, model, theirs).largest_difference < 1e-5
    for name, tensor in whole.items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 0.5
        save_file(whole | {name: changed}, path, metadata={"format": "pt"})
        with pytest.raises(MyptError, match="computes other logits, by up to"):
            check_by_transformers(out, model, theirs)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MyptError, match="cannot load the export"):
        check_by_transformers(out, model, theirs)


def test_a_changed_tokenizer_is_noticed(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, spec := tokenizer("bpe"), **ARCHITECTURES["gpt2"])
    exported(directory, out)
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
    monkeypatch.setattr("mypt.core.export.by_transformers._TOLERANCE", -1.0)
    with pytest.raises(MyptError, match="computes other logits"):
        exported(directory, out)
    assert list(out.parent.iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(directory: ModelDirectory, out: Path) -> None:
    published(directory, tokenizer("byte"), **ARCHITECTURES["gpt2"])
    out.mkdir(parents=True)
    with pytest.raises(DataError, match="already there"):
        exported(directory, out)
    assert list(out.iterdir()) == []


def test_what_no_other_program_knows_is_refused(directory: ModelDirectory, out: Path) -> None:
    published(directory, tokenizer("byte"), family="mypt-v1", n_head=2, n_embd=16)
    with pytest.raises(CheckpointError, match="family mypt-v1 is known to no other program"):
        exported(directory, out)
    assert not out.parent.exists()


def test_numbers_too_large_for_fp16_are_refused(directory: ModelDirectory, out: Path) -> None:
    model = published(directory, spec := tokenizer("byte"), **ARCHITECTURES["gpt2"])
    training = next(iter(directory.states())).training()
    with torch.no_grad():
        model.token_embedding.weight[3, 3] = 1e6
    directory.publish(Contents(model.config, spec, training.model_copy(update={"step": 6}), weights_of(model)))
    with pytest.raises(UsageError, match=r"token_embedding\.weight: has numbers too large for fp16"):
        exported(directory, out, precision="fp16")
    assert exported(directory, out, precision="bf16").step == 6
