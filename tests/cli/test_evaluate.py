"""mypt evaluate, as a user drives it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import clean_environment
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, RunConfig, TrainingConfig
from support import Mypt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """`model` has learned more than `short`; `bytes` has another tokenizer."""
    folder = tmp_path_factory.mktemp("made")
    file = folder / "own.txt"
    file.write_text(text, encoding="utf-8")
    for name, steps, tokenization in (("model", 40, "char"), ("short", 2, "char"), ("bytes", 2, "byte")):
        run = RunConfig(
            model=ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=32),
            training=TrainingConfig(
                batch_size=4, max_iters=steps, learning_rate=1e-2, eval_interval=20, eval_iters=2, device="cpu"
            ),
            data=DataConfig(input_files=(str(file),), tokenization=tokenization),
        )
        list(train(run, ModelDirectory(folder / "checkpoints", name)))
    return folder


@pytest.fixture(autouse=True)
def own(made: Path, directory: ModelDirectory) -> Path:
    """The text that the models were trained on; they lie where the command looks for them."""
    shutil.copytree(made / "checkpoints", directory.path.parent)
    return made / "own.txt"


def test_a_model_is_scored_on_its_own_text(mypt: Mypt, own: Path) -> None:
    run = mypt("evaluate", "model")
    assert run.returncode == 0, run.stderr
    assert f"the text that model was trained on: {own}" in run.stderr
    assert "tokens/s on cpu" in run.stderr
    for word in ("loss", "perplexity", "bits/byte", "top-1", "Split 'val'", "--split all", "side by side"):
        assert word in run.stdout
    assert "*" not in run.stdout
    assert mypt("evaluate", "--model_name", "model").stdout == run.stdout


def test_json_is_one_object_with_a_row_for_each_model(mypt: Mypt, text_file: Path) -> None:
    run = mypt("evaluate", "short", "model", "--input_files", text_file, "--split", "all", "--stride", 8, "--json")
    report = json.loads(run.stdout)
    assert report["schema"] == 1
    assert (report["split"], report["text"]) == ("all", [str(text_file)])
    assert [model["name"] for model in report["models"]] == ["short", "model"]
    for model in report["models"]:
        assert model["predicted_tokens"] == model["tokens"] - 1
        assert model["stride"] == 8
        assert {"loss", "perplexity", "bits_per_byte", "accuracy", "text_bytes", "step", "tokenizer"} <= set(model)
    assert report["models"][1]["loss"] < report["models"][0]["loss"]


def test_the_best_of_several_is_marked(mypt: Mypt) -> None:
    run = mypt("evaluate", "short", "model")
    rows = {line.split()[0]: line for line in run.stdout.splitlines() if line}
    assert rows["model"].count("*") == 4
    assert "*" not in rows["short"]
    assert "Windows" in run.stdout


def test_other_tokenizers_compare_by_their_bytes_alone(mypt: Mypt, text_file: Path) -> None:
    run = mypt("evaluate", "bytes", "model", "--input-file", text_file, "--split", "all")
    rows = {line.split()[0]: line for line in run.stdout.splitlines() if line}
    assert rows["model"].count("*") == 1
    assert "Per token these models do not compare" in run.stdout
    assert "Not for all models the same bytes" not in run.stdout
    by_end = mypt("evaluate", "bytes", "model")
    assert "Not for all models the same bytes (bytes " in by_end.stdout


def test_several_files_are_named_one_by_one(mypt: Mypt, text_file: Path) -> None:
    other = text_file.with_name("other.txt")
    other.write_text("The river keeps 7 tokens.", encoding="utf-8")
    both = mypt("evaluate", "model", "--input-file", text_file, "--input-file", other, "--split", "all", "--json")
    report = json.loads(both.stdout)
    assert report["text"] == [str(text_file), str(other)]
    assert report["models"][0]["text_bytes"] == text_file.stat().st_size + other.stat().st_size
    wrong = mypt("evaluate", "model", "--input-files", text_file, other)
    assert wrong.returncode == 2
    assert "plain arguments are models here" in wrong.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("model nobody", 4, "nobody: no model of this name"),
        ("model --stride 0", 2, "stride = 0"),
        ("model --stride 33", 2, "--stride 33"),
        ("model --split test", 2, 'split = "test"'),
        ("model --batch-size 0", 2, "batch_size = 0"),
        ("model --unknown maybe", 2, 'unknown = "maybe"'),
        ("model --device cuda:99", 2, "this machine does not have it"),
        ("model --input-file nosuch.txt", 3, "nosuch.txt: no such file"),
        ("model --dataset-dir nosuch", 3, "nosuch"),
        ("model --input-file tale.txt --dataset-dir nosuch", 2, "not both"),
        ("model --input-file odd.txt", 3, "'Ω'"),
        ("model --input-file short.txt --split all", 3, "a score needs two"),
        ("model bytes --input-file -", 2, "standard input"),
        ("model --model-name short", 2, "two model names"),
    ],
)
def test_what_cannot_be_is_one_message(mypt: Mypt, tmp_path: Path, line: str, code: int, told: str) -> None:
    (tmp_path / "odd.txt").write_text("Ω" * 100, encoding="utf-8")
    (tmp_path / "short.txt").write_text("T", encoding="utf-8")
    refused = mypt("evaluate", *line.split())
    assert refused.returncode == code, refused.stderr
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not refused.stdout


def test_a_dataset_of_another_tokenizer_is_exit_3(mypt: Mypt, text_file: Path) -> None:
    made = mypt("prepare-dataset", text_file, "--out-dir", "set", "--tokenization", "byte")
    assert made.returncode == 0, made.stderr
    refused = mypt("evaluate", "model", "--dataset-dir", "set")
    assert refused.returncode == 3
    assert "another table than the model's" in refused.stderr
    assert mypt("evaluate", "bytes", "--dataset-dir", "set").returncode == 0


def test_unknown_characters_can_be_left_out(mypt: Mypt, tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.txt").write_text(text[:300] + "Ω" * 100, encoding="utf-8")
    run = mypt("evaluate", "model", "--input-file", "odd.txt", "--split", "all", "--unknown", "skip")
    assert run.returncode == 0, run.stderr
    assert "left out: 200 of" in run.stderr


def test_a_damaged_state_falls_back_with_a_warning(mypt: Mypt, directory: ModelDirectory) -> None:
    weights = directory.states()[0].path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run = mypt("evaluate", "model")
    assert run.returncode == 0
    assert run.stderr.count("trying the one before it") == 1


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_ctrl_c_ends_it_with_130_and_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "long.txt").write_text(text * 40, encoding="utf-8")
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mypt",
            "evaluate",
            "model",
            "--input-file",
            "long.txt",
            "--split",
            "all",
            "--stride",
            "1",
        ],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    told = ""
    while "read " not in told:
        line = child.stderr.readline()
        assert line, told
        told += line
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert not out
