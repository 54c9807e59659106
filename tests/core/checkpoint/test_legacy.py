"""Checkpoints of the original program: the same logits, the same text, and training goes on."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.legacy import convert, newest_legacy, report_legacy
from mypt.core.checkpoint.legacy_file import read_legacy
from mypt.core.checkpoint.state import OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.generate.loaded import LoadedModel, load_model
from mypt.errors import CheckpointError
from mypt.events import Converted, Noted

NAMES = ["bard_char", "bard_char_json", "bard_gpt2"]


def converted(legacy: Path, name: str) -> tuple[LoadedModel, dict[str, Any]]:
    directory = ModelDirectory(legacy, name)
    assert len(list(convert(newest_legacy(directory.path), directory, dry_run=False))) == 1
    expected = json.loads((legacy / name / "expected.json").read_text())
    return load_model(directory, "cpu", pytest.fail), expected


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_model_gives_the_originals_logits(legacy: Path, name: str) -> None:
    loaded, expected = converted(legacy, name)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([expected["prompt_ids"]]))[0, -1]
    torch.testing.assert_close(logits[:32], torch.tensor(expected["last_logits_head"]), rtol=1e-5, atol=1e-5)
    assert logits.double().sum().item() == pytest.approx(expected["last_logits_sum"], rel=1e-5)
    assert int(logits.argmax()) == expected["last_logits_argmax"]


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_model_writes_the_originals_text_past_its_window(legacy: Path, name: str) -> None:
    loaded, expected = converted(legacy, name)
    assert loaded.tokenizer.encode(expected["prompt"]).tolist() == expected["prompt_ids"]
    assert len(expected["prompt_ids"]) + 40 > loaded.model.config.block_size
    assert loaded.generate(expected["prompt"], temperature=0, max_new_tokens=40) == expected["greedy_text"]


@pytest.mark.parametrize("name", NAMES)
def test_step_parameters_and_tokenizer_carry_over(legacy: Path, name: str) -> None:
    loaded, expected = converted(legacy, name)
    assert loaded.snapshot.training.step == expected["step"]
    assert loaded.snapshot.config.parameters == expected["params"]
    assert loaded.snapshot.tokenizer.kind == expected["token_kind"]


@pytest.mark.parametrize("name", ["bard_char", "bard_char_json"])
def test_the_optimizers_moments_carry_over(legacy: Path, name: str) -> None:
    old = read_legacy(newest_legacy(legacy / name))
    assert old.optimizer is not None
    loaded, _ = converted(legacy, name)
    new = load_tensors(loaded.snapshot.state.path / OPTIMIZER_FILE, torch.device("cpu"))
    assert new["head.weight/step"].item() == 300
    names = [each for each in old.weights if not each.endswith(".tril")]
    old_moment = old.optimizer["state"][names.index("lm_head.weight")]["exp_avg"]
    assert torch.equal(new["head.weight/exp_avg"], old_moment)
    second_head = old.optimizer["state"][names.index("blocks.1.sa.heads.2.key.weight")]["exp_avg_sq"]
    width, head_width = 32, 8
    rows = slice(width + 2 * head_width, width + 3 * head_width)
    assert torch.equal(new["blocks.1.attention.query_key_value.weight/exp_avg_sq"][rows], second_head)


@pytest.mark.parametrize("name", NAMES)
def test_the_original_files_stay_as_they_are(legacy: Path, name: str) -> None:
    before = digests(legacy / name)
    converted(legacy, name)
    after = digests(legacy / name)
    assert {file: after[file] for file in before} == before


def test_a_dry_run_writes_nothing(legacy: Path) -> None:
    directory = ModelDirectory(legacy, "bard_char")
    before = sorted(path.name for path in directory.path.iterdir())
    (event,) = convert(newest_legacy(directory.path), directory, dry_run=True)
    assert isinstance(event, Converted)
    assert event.dry_run
    assert event.has_optimizer
    assert sorted(path.name for path in directory.path.iterdir()) == before


def test_converting_twice_changes_nothing_and_says_so(legacy: Path) -> None:
    directory = ModelDirectory(legacy, "bard_char")
    list(convert(newest_legacy(directory.path), directory, dry_run=False))
    before = digests(directory.states()[0].path)
    (event,) = convert(newest_legacy(directory.path), directory, dry_run=False)
    assert isinstance(event, Noted)
    assert digests(directory.states()[0].path) == before


def test_a_report_needs_no_conversion(legacy: Path) -> None:
    report = report_legacy(legacy / "bard_char" / "latest.pt")
    assert (report.parameters, report.step, report.tokenizer) == (30_269, 300, "char")


class _Canary:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("hidden_in", ["the file itself", "the config", "the weights"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, hidden_in: str) -> None:
    canary = tmp_path / "canary"
    bomb = _Canary(canary)
    content: Any = {
        "the file itself": bomb,
        "the config": {"model_state_dict": {}, "config": bomb, "tokenizer": {}},
        "the weights": {"model_state_dict": {"x": bomb}, "config": {}, "tokenizer": {}},
    }[hidden_in]
    path = tmp_path / "latest.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="could run code"):
        read_legacy(path)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError):
        read_legacy(path)
    assert not canary.exists()
    torch.save(content, path)
    torch.load(path, weights_only=False)
    assert canary.exists(), "the bomb is live: only the refusal kept it from going off"


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"PK\x03\x04broken zip"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "latest.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"latest\.pt"):
        read_legacy(path)


def test_a_file_with_other_tensors_than_its_config_is_refused(legacy: Path) -> None:
    path = legacy / "bard_char" / "latest.pt"
    content = torch.load(path, weights_only=True)
    content["config"]["n_embd"] = 64
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="do not fit"):
        list(convert(path, ModelDirectory(legacy, "bard_char"), dry_run=False))
