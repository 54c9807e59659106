"""The front door: help, version, typos, spelling, and how light it all is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import Mypt

COMMANDS = [
    "quickstart",
    "train",
    "generate",
    "evaluate",
    "prepare-dataset",
    "tokenizer",
    "inspect",
    "params",
    "configs",
    "convert-legacy",
    "import-dataset",
    "verify",
    "compress",
    "bench",
]


def test_help_wakes_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mypt.cli.app import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'tiktoken', 'safetensors', 'mypt.records.base'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_mypt_alone_shows_help_and_the_way_in(mypt: Mypt) -> None:
    shown = mypt()
    assert shown.returncode == 0
    assert "New here?  mypt quickstart" in shown.stdout
    assert all(command in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(mypt: Mypt, command: str) -> None:
    shown = mypt(command, "--help")
    assert shown.returncode == 0
    assert "Usage:" in shown.stdout


def test_the_version_is_the_packages(mypt: Mypt) -> None:
    from importlib.metadata import version

    assert mypt("--version").stdout.strip() == f"mypt {version('mypt')}"


def test_typos_get_a_suggestion(mypt: Mypt) -> None:
    refused = mypt("trian")
    assert refused.returncode == 2
    assert "train" in refused.stderr


def test_presets_and_models_complete(mypt: Mypt, tmp_path: Path) -> None:
    (tmp_path / "checkpoints/shakespeare/step-00000001").mkdir(parents=True)

    def completions(words: str) -> str:
        line = {"COMP_WORDS": f"mypt {words}", "COMP_CWORD": str(len(words.split())), "_MYPT_COMPLETE": "complete_bash"}
        return subprocess.run(
            [sys.executable, "-c", "from mypt.cli.app import app; app(prog_name='mypt')"],
            cwd=tmp_path, env={"PATH": "/usr/bin"} | line, capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    assert "shakespeare" in completions("generate --model-name s")
    assert completions("train --config-file 150").split() == ["150M", "150M_1024"]


# The original's command lines, word for word; training ones stop after the resolved config.
ORIGINAL = [
    "train --config_file tiny --model_name base_model --input_file input.txt --max_iters 1 --eval_iters 1",
    "train --config_file presets/small.json --model_name my_model --input_file input.txt --max_iters 1000 --dry-run",
    (
        "train --dataset_dir data/my_dataset --model_name my_large_model --config_file presets/150M_1024.json "
        "--max_iters 10000 --learning_rate 3e-4 --dry-run"
    ),
    (
        "train --config_file presets/150M.json --model_name finetuned_model --init_from_model base_model "
        "--input_file domain.txt --max_iters 2000 --learning_rate 1e-4 --dry-run"
    ),
    "prepare-dataset --input_files data/a.txt data/b.txt --out_dir data/my_dataset --tokenization gpt2",
    "prepare-dataset --input_files wiki.txt books.txt --out_dir data/large_corpus --tokens_per_shard 10000000",
    "params --config_file presets/150M_1024.json",
    "configs",
    "train --config_file configs/tiny.json --model_name my_model --input_file input.txt --max_iters 1 --eval_iters 1",
    "generate --model_name my_model --prompt 'Your_prompt_here'",
    "inspect --model_name my_model",
    "inspect my_model",
    "convert-legacy --all --dry-run",
]


def test_the_originals_command_lines_run_word_for_word(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("input.txt", "domain.txt", "wiki.txt", "books.txt", "data/a.txt", "data/b.txt"):
        (tmp_path / name).write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    for line in ORIGINAL:
        run = mypt(*line.replace("'", "").split())
        assert run.returncode == (4 if "--all" in line else 0), f"{line}\n{run.stderr}"


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m mypt configs | head -n 1"
    shown = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "preset" in shown.stdout
    assert "Traceback" not in shown.stderr


def test_debug_shows_the_traceback(mypt: Mypt) -> None:
    assert "Traceback" not in mypt("inspect", "nobody").stderr
    assert "Traceback" in mypt("--debug", "inspect", "nobody").stderr


@pytest.mark.long
def test_quickstart_learns_writes_and_names_the_next_commands(mypt: Mypt) -> None:
    run = mypt("quickstart", "--minutes", "0.02", "--json")
    assert run.returncode == 0, run.stderr
    events = [json.loads(line) for line in run.stdout.splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[-1] < losses[0] - 0.5
    assert events[-1]["event"] == "generated"
    assert len(events[-1]["text"]) > 100
    spoken = mypt("quickstart", "--minutes", "0.02", "--text", "code")
    assert spoken.returncode == 0, spoken.stderr
    for words in ("Next:", "generate quickstart", "inspect quickstart", "--model-name mine", "set aside"):
        assert words in spoken.stderr
