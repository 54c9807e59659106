"""inspect, params, configs, and what --json promises."""

import json
import sys
from pathlib import Path

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.presets import load_preset, preset_names
from mypt.records.run import RunConfig
from support import Mypt


@pytest.fixture
def trained(tiny_run: RunConfig, directory: ModelDirectory) -> ModelDirectory:
    short = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update={"max_iters": 4})})
    list(train(short, directory))
    return directory


def test_inspect_tells_the_truth_about_a_model(mypt: Mypt, trained: ModelDirectory) -> None:
    report = json.loads(mypt("inspect", "--model_name", "model", "--json").stdout)
    state = trained.states()[0]
    assert report["schema"] == 1
    assert report["parameters"] == state.config().parameters
    assert report["step"] == 4
    assert report["tokenizer"] == "char"
    assert report["config"] == state.config().model_dump()
    assert len(report["losses"]) == 4
    assert report["val_loss"] == state.training().val_loss
    for target in ("model", "checkpoints/model", "checkpoints/model/step-00000004"):
        shown = mypt("inspect", target)
        assert shown.returncode == 0, shown.stderr
        assert f"{state.config().parameters:,}" in shown.stdout


def test_inspect_wakes_neither_torch_nor_numpy(mypt: Mypt, trained: ModelDirectory, tmp_path: Path) -> None:
    code = (
        "import sys; from mypt.cli.app import app\n"
        "try: app(['inspect', 'model'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'tiktoken'} & set(sys.modules)))"
    )
    import subprocess

    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    assert "parameters" in shown.stdout


def test_inspect_understands_a_dataset(mypt: Mypt, text_file: Path) -> None:
    mypt("prepare-dataset", text_file, "--out-dir", "data/set")
    report = json.loads(mypt("inspect", "data/set", "--json").stdout)
    assert report["kind"] == "dataset"
    assert report["source_bytes"] == text_file.stat().st_size
    assert "tokens" in mypt("inspect", "data/set").stdout


def test_inspect_understands_an_old_checkpoint(mypt: Mypt, legacy: Path) -> None:
    for target in ("bard_char", "bard_char_json", "checkpoints/bard_gpt2/final.pt"):
        shown = mypt("inspect", target)
        assert shown.returncode == 0, shown.stderr
        assert "legacy checkpoint" in shown.stdout
    by_option = mypt("inspect", "--model_name", "bard_char", "--legacy_checkpoint", "latest.pt", "--json")
    assert json.loads(by_option.stdout)["parameters"] == 30_269


def test_an_unknown_model_names_those_that_are_there(mypt: Mypt, trained: ModelDirectory) -> None:
    for command in ("inspect", "generate"):
        refused = mypt(command, "--model-name", "modle")
        assert refused.returncode == 4
        assert "Models here: model" in refused.stderr


@pytest.mark.parametrize("arguments", [("tiny",), ("--config_file", "presets/tiny.json"), ("-c", "configs/tiny.json")])
def test_params_counts_a_preset(mypt: Mypt, arguments: tuple[str, ...]) -> None:
    report = json.loads(mypt("params", *arguments, "--json").stdout)
    assert report["parameters"] == load_preset("tiny").model.parameters
    assert sum(report["parameters_by_part"].values()) == report["parameters"]
    assert max(report["training_memory_by_part"].values()) < report["training_memory_bytes"]
    assert report["training_memory_bytes"] < sum(report["training_memory_by_part"].values())
    assert sum(report["generation_memory_by_part"].values()) == report["generation_memory_bytes"]
    assert report["optimal_tokens"] == 20 * report["parameters"]


def test_params_counts_a_model_and_given_sizes(mypt: Mypt, trained: ModelDirectory) -> None:
    report = json.loads(mypt("params", "--model-name", "model", "--json").stdout)
    assert report["parameters"] == trained.states()[0].config().parameters
    given = json.loads(
        mypt("params", "--n_layer", "2", "--n_head", "2", "--n_embd", "32", "--vocab_size", "100", "--json").stdout
    )
    assert given["config"]["n_embd"] == 32
    shown = mypt("params", "150M_1024")
    for word in ("token embedding", "kv cache", "activations", "FLOP", "Hoffmann"):
        assert word in shown.stdout


def test_configs_lists_every_preset(mypt: Mypt) -> None:
    report = json.loads(mypt("configs", "--json").stdout)
    assert [entry["name"] for entry in report["presets"]] == preset_names()
    assert all(entry["parameters"] == load_preset(entry["name"]).model.parameters for entry in report["presets"])
    table = mypt("configs").stdout
    assert all(name in table for name in preset_names())
    assert "preset tiny" in mypt("configs", "--config_file", "tiny").stdout
