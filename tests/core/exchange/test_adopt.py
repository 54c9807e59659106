"""A model of transformers becomes one of ours with the same logits; what came from here comes back as it was."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from exporting import ARCHITECTURES, KINDS, exported, published, tokenizer
from mypt.core.checkpoint.snapshot import open_snapshot
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.exchange.adopt import import_model
from mypt.core.model.gpt import GPT
from mypt.core.tokens.exported import as_hugging_face
from mypt.errors import CheckpointError, DataError, MyptError
from mypt.events import Imported
from mypt.records.tokenizer import ByteSpec

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 300, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "qwen3": {
        "vocab_size": 300, "max_position_embeddings": 24, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "theirs"


def made_by_transformers(folder: Path, kind: str, **changes: Any) -> Any:
    """A model with weights by chance, as transformers saves it, with the tokenizer of bytes."""
    Config, Model = {
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }[kind]
    torch.manual_seed(3)
    config: Any = Config(**(SIZES[kind] | {"bos_token_id": 256, "eos_token_id": 256} | changes))
    model = Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size="20KB" if changes else "50GB")
    (folder / "tokenizer.json").write_text(as_hugging_face(ByteSpec()).as_file())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return model


def adopted(folder: Path, directory: ModelDirectory) -> GPT:
    (event,) = import_model(folder, directory)
    assert isinstance(event, Imported)
    assert event.largest_difference < 1e-5
    return open_snapshot(directory, pytest.fail).load(torch.device("cpu"))


def require_same_logits(ours: GPT, theirs: Any) -> None:
    ids = torch.arange(48).view(2, 24)
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"resid_pdrop": 0.0}),
        ("qwen3", {}),
        ("qwen3", {"tie_word_embeddings": True}),
        ("qwen3", {"num_key_value_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    ],
    ids=["gpt2", "gpt2, in pieces", "qwen3", "qwen3, tied, in pieces", "qwen3, all keys, in pieces"],
)
def test_what_transformers_saved_has_its_logits_here(
    directory: ModelDirectory, folder: Path, kind: str, changes: dict[str, Any]
) -> None:
    theirs = made_by_transformers(folder, kind, **changes)
    assert (folder / "model.safetensors.index.json").is_file() == bool(changes)
    require_same_logits(adopted(folder, directory), theirs)


def test_old_files_of_gpt2_with_short_names_and_masks_are_read(directory: ModelDirectory, folder: Path) -> None:
    theirs = made_by_transformers(folder, "gpt2")
    path = folder / "model.safetensors"
    short = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    short |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 24, 24).tril() for layer in range(2)}
    short["lm_head.weight"] = short["wte.weight"].clone()
    save_file(short, path)
    content = json.loads((folder / "config.json").read_text())
    old = {"model_type", "activation_function", "layer_norm_epsilon", "n_ctx", "resid_pdrop", *SIZES["gpt2"]}
    content = {name: value for name, value in content.items() if name in old}
    (folder / "config.json").write_text(json.dumps(content | {"n_ctx": 24}))
    require_same_logits(adopted(folder, directory), theirs)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in sorted({*KINDS} - {"bpe, whole words"})  # it has pieces that no merge makes
        for name in ARCHITECTURES
        if kind in {"byte", "char"} or name == "modern"
    ],
)
def test_what_was_exported_comes_back_as_it_was(tmp_path: Path, kind: str, name: str) -> None:
    first, second = (ModelDirectory(tmp_path, each) for each in ("first", "second"))
    published(first, tokenizer(kind), padding=0, **ARCHITECTURES[name])
    exported(first, tmp_path / "out", "hf")
    adopted(tmp_path / "out", second)
    ways = [directory.states()[0].path for directory in (first, second)]
    for file in ("config.json", "model.safetensors"):
        assert ways[0].joinpath(file).read_bytes() == ways[1].joinpath(file).read_bytes()
    assert second.states()[0].tokenizer() == tokenizer(kind)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"n_inner": 64}, "n_inner = 64"),
        ("gpt2", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon = 1e-06"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_layer": 3}, r"lacks the tensor transformer\.h\.2"),
        ("gpt2", {"n_layer": 1}, r"holds the tensor transformer\.h\.1"),
        ("gpt2", {"n_embd": 64}, r"transformer\.\S+ is float32 of the shape"),
        ("gpt2", {"n_head": 5}, "n_embd = 32 is not divisible by n_head = 5"),
        ("gpt2", {"n_positions": 1}, "block_size"),
        (
            "gpt2",
            {"vocab_size": 200},
            r"wte.weight is float32 of the shape \(300, 32\) \(allowed: .*\(200, 32\)\)",
        ),
        ("gpt2", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ("qwen3", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("qwen3", {"head_dim": 24}, "head_dim = 24"),
        ("qwen3", {"attention_bias": True}, "attention_bias"),
        ("qwen3", {"rms_norm_eps": 1e-5}, "rms_norm_eps = 1e-05"),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope_type"),
        ("qwen3", {"model_type": "llama"}, "model_type"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name(
    directory: ModelDirectory, folder: Path, kind: str, changes: dict[str, Any], reason: str
) -> None:
    made_by_transformers(folder, kind)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=reason):
        adopted(folder, directory)
    assert not directory.path.exists()


def test_a_folder_that_says_one_thing_and_holds_another_is_noticed(directory: ModelDirectory, folder: Path) -> None:
    made_by_transformers(folder, "gpt2")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_head": 8}))
    model = adopted(folder, directory)
    assert model.config.n_head == 8, "nothing else tells the heads"
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="model_type"):
        adopted(folder, ModelDirectory(folder, "other"))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        adopted(folder, ModelDirectory(folder, "other"))


def test_what_is_missing_or_damaged_is_one_message(directory: ModelDirectory, folder: Path) -> None:
    made_by_transformers(folder, "qwen3")
    weights, text = folder / "model.safetensors", folder / "tokenizer.json"
    whole, content = weights.read_bytes(), text.read_text()
    for damaged in (whole[:-1], b"", b"\x00" * 100):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot load it"):
            adopted(folder, directory)
    tensors = load_file(folder / "model.safetensors") if not weights.write_bytes(whole) else load_file(weights)
    save_file(tensors | {"lm_head.weight": torch.full((300, 48), torch.nan)}, weights)
    with pytest.raises(CheckpointError, match="not finite"):
        adopted(folder, directory)
    weights.write_bytes(whole)
    text.write_text("{}")
    with pytest.raises(DataError, match="tokenizer"):
        adopted(folder, directory)
    text.write_text(content)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')
    weights.rename(folder.parent / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no file \.\./model\.safetensors"):
        adopted(folder, directory)


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 5), (32, 96, 1)])
@pytest.mark.parametrize("name", ["wte.weight", "h.0.attn.c_attn.weight", "ln_f.weight"])
def test_a_tensor_of_another_shape_is_told_by_its_name(
    directory: ModelDirectory, folder: Path, name: str, shape: tuple[int, ...]
) -> None:
    made_by_transformers(folder, "gpt2")
    path = folder / "model.safetensors"
    for other in (torch.zeros(shape), torch.zeros(shape, dtype=torch.complex64)):
        save_file(load_file(path) | {f"transformer.{name}": other}, path)
        with pytest.raises(CheckpointError, match=rf"transformer\.{name} is \w+ of the shape"):
            adopted(folder, directory)


def test_nothing_else_in_a_folder_counts_and_none_of_its_code_runs(
    directory: ModelDirectory, folder: Path, tmp_path: Path
) -> None:
    theirs = made_by_transformers(folder, "gpt2")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    more = {
        "auto_map": {f"Auto{each}": f"evil.{each}" for each in ("Config", "ModelForCausalLM", "Tokenizer")},
        "_attn_implementation": "owner/kernel",
        "attn_implementation": "owner/kernel",
        "transformers_weights": "../x.bin",
    }
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    require_same_logits(adopted(folder, directory), theirs)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_no_regular_file_is_not_waited_for(directory: ModelDirectory, folder: Path, file: str) -> None:
    made_by_transformers(folder, "gpt2")
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises((CheckpointError, DataError), match=file):
        adopted(folder, directory)


def test_a_model_that_is_there_is_kept(directory: ModelDirectory, folder: Path) -> None:
    made_by_transformers(folder, "gpt2")
    adopted(folder, directory)
    before = directory.states()[0].path.joinpath("manifest.json").read_bytes()
    with pytest.raises(CheckpointError, match="there is a model already"):
        adopted(folder, directory)
    assert directory.states()[0].path.joinpath("manifest.json").read_bytes() == before


def test_a_tokenizer_that_transformers_reads_otherwise_is_noticed(directory: ModelDirectory, folder: Path) -> None:
    made_by_transformers(folder, "qwen3")
    (folder / "tokenizer_config.json").unlink()  # then it is read as Qwen's own, which joins accents to their letters
    with pytest.raises(MyptError, match=f"{folder}: transformers .* gives other ids for") as caught:
        adopted(folder, directory)
    assert caught.value.hint == "Nothing was kept."
    assert not directory.path.exists()
