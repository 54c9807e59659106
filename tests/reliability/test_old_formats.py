"""Checkpoints of every format that was ever written load for ever: told, verified, spoken with, trained on."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.report import report_model
from mypt.core.checkpoint.state import MODEL_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.checkpoint.verify import verify_model
from mypt.core.generate.loaded import load_model
from mypt.core.train.run import train
from mypt.core.train.session import ARITHMETIC
from mypt.events import Finished, Verified, Warned
from mypt.records.run import DataConfig, RunConfig
from support import Mypt

CORPUS = Path(__file__).parent.parent / "corpus"
MODELS = sorted(path.parent.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*/expected.json"))
each_model = pytest.mark.parametrize("name", MODELS)


def copied(name: str, tmp_path: Path) -> tuple[ModelDirectory, dict[str, Any]]:
    """A copy of a model, and what its version said of it."""
    shutil.copytree(CORPUS / name, tmp_path / "model")
    return ModelDirectory(tmp_path, "model"), json.loads((tmp_path / "model" / "expected.json").read_text())


def test_the_corpus_has_both_families_and_three_kinds_of_tokenizers() -> None:
    reports = [report_model(ModelDirectory((CORPUS / name).parent, Path(name).name)) for name in MODELS]
    assert {report.config.family for report in reports} == {"gpt2", "mypt-v1"}
    assert {report.tokenizer for report in reports} == {"char", "byte", "bpe"}


@each_model
def test_an_old_model_is_told_and_verified(name: str, tmp_path: Path) -> None:
    directory, expected = copied(name, tmp_path)
    report = report_model(directory)
    assert (report.parameters, report.step) == (expected["parameters"], expected["step"])
    assert report.tokenizer == expected["tokenizer"]
    *_, verified = verify_model(directory)
    assert isinstance(verified, Verified)
    assert verified.files == (5 if expected["has_optimizer"] else 4)
    assert verified.damaged == ()


@each_model
def test_an_old_model_gives_its_logits_and_its_text(name: str, tmp_path: Path) -> None:
    directory, expected = copied(name, tmp_path)
    loaded = load_model(directory, "cpu", pytest.fail)
    assert loaded.tokenizer.encode(expected["prompt"]).tolist() == expected["prompt_ids"]
    window = expected["prompt_ids"][-loaded.model.config.block_size :]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([window]))[0, -1]
    torch.testing.assert_close(logits, torch.tensor(expected["last_logits"]), rtol=1e-5, atol=1e-5)
    assert loaded.generate(expected["prompt"], temperature=0, max_new_tokens=24) == expected["greedy_text"]


@each_model
def test_an_old_run_goes_on_to_the_weights_it_would_have_had(name: str, tmp_path: Path) -> None:
    directory, expected = copied(name, tmp_path)
    state = directory.states()[0]
    data = DataConfig(input_files=(str((CORPUS / name).parent / "text.txt"),), tokenization=expected["tokenizer"])
    config = RunConfig(model=state.config(), training=state.training().training, data=data)
    events = list(train(config, directory))
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert f"arithmetic 1 before and {ARITHMETIC} now" in warnings.pop()
    assert len(warnings) == (0 if expected["has_optimizer"] else 1)  # AdamW begins anew
    assert isinstance(events[-1], Finished)
    weights = load_tensors(directory.states()[0].path / MODEL_FILE, torch.device("cpu"))
    after = expected["after_five_steps"]
    torch.testing.assert_close(weights["final_norm.weight"], torch.tensor(after["final_norm"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS[:1])
def test_the_commands_take_an_old_model(name: str, tmp_path: Path, mypt: Mypt) -> None:
    _, expected = copied(name, tmp_path)
    place = ("--checkpoint-dir", tmp_path)
    told = mypt("inspect", "model", *place, "--json")
    assert json.loads(told.stdout)["parameters"] == expected["parameters"]
    assert mypt("verify", "model", *place).returncode == 0
    prompt = ("--prompt", expected["prompt"], "--temperature", 0, "--max-new-tokens", 24, "--quiet")
    assert mypt("generate", "model", *place, *prompt).stdout.rstrip("\n") == expected["greedy_text"].rstrip("\n")
    text = os.path.relpath((CORPUS / name).parent / "text.txt", tmp_path)
    done = mypt("train", text, "--model-name", "model", *place)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "step-00000015").is_dir()
