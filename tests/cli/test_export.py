"""mypt export and mypt import, as a user drives them."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from commands import without
from forking import Forks, exit_code
from support import Mypt

TRAIN = (
    *("train", "tale.txt", "--model-name", "notes", "--max-iters", "3", "--eval-iters", "1", "--block-size", "32"),
    *("--n-layer", "2", "--n-head", "2", "--n-embd", "32", "--batch-size", "2"),
)


@pytest.fixture
def notes(mypt: Mypt, text_file: Path) -> Path:
    """A folder with a trained model of characters."""
    made = mypt(*TRAIN, "--tokenization", "char", "--set", "model.family=modern")
    assert made.returncode == 0, made.stderr
    return text_file.parent


def test_a_model_leaves_in_both_forms_and_what_is_there_is_kept(mypt: Mypt, notes: Path) -> None:
    for form, name in (("hf", "notes-hf"), ("gguf", "notes.gguf")):
        done = mypt("export", "notes", "--to", form)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        first, second = done.stderr.splitlines()
        assert first.startswith(f"checkpoints/notes/step-00000003 -> {name}: step 3, fp32, ")
        assert second.startswith("Checked by ")
        again = mypt("export", "notes", "--to", form)
        assert again.returncode == 3
        assert f"Error: {name}: already there; nothing was changed" in again.stderr
    assert sorted(path.name for path in notes.iterdir()) == ["checkpoints", "notes-hf", "notes.gguf", "tale.txt"]


def test_json_is_one_event(mypt: Mypt, notes: Path) -> None:
    done = mypt("export", "notes", "--json", "--out", "deep/er/folder", "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    event = json.loads(done.stdout)
    folder = notes / "deep/er/folder"
    assert event["event"] == "exported"
    assert (event["target"], event["format"], event["precision"], event["step"]) == ("deep/er/folder", "hf", "bf16", 3)
    assert event["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert event["checked_by"].startswith("transformers ")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("export",), 2, "say which model"),
        (("export", "notes", "--to", "onnx"), 2, "hf"),
        (("export", "notes", "--precision", "int8"), 2, "fp32"),
        (("export", "nobody"), 4, "nobody"),
        (("export", "notes", "--out", "tale.txt"), 3, "already there"),
        (("export", "notes", "--out", "tale.txt/in"), 1, "tale.txt/in: cannot write it"),
    ],
)
def test_what_cannot_be_is_one_message(
    mypt: Mypt, notes: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    refused = mypt(*arguments)
    assert refused.returncode == code, refused.stderr
    assert refused.stderr.startswith("Error: ")
    assert told in refused.stderr
    assert sorted(path.name for path in notes.iterdir()) == ["checkpoints", "tale.txt"]


@pytest.mark.parametrize(("form", "module"), [("hf", "transformers"), ("gguf", "xllamacpp"), ("gguf", "gguf")])
def test_a_missing_program_is_exit_7_with_the_install_line(notes: Path, form: str, module: str) -> None:
    refused = without(module, "export", "notes", "--to", form, cwd=notes)
    assert refused.returncode == 7
    assert "pip install 'mypt[export]'" in refused.stderr


def test_a_model_in_int8_is_exported_from_what_it_was_made_of(mypt: Mypt, notes: Path) -> None:
    assert mypt("quantize", "notes").returncode == 0
    refused = mypt("export", "notes-int8")
    assert refused.returncode == 4
    assert "its weights are in int8" in refused.stderr


@pytest.mark.parametrize("form", ["hf", "gguf"])
def test_a_disk_without_room_leaves_nothing(forks: Forks, notes: Path, form: str) -> None:
    refused = forks.run("export", "notes", "--to", form, cwd=notes, file_limit_bytes=20_000)
    assert refused.returncode == 1, refused.stderr
    assert "cannot write it (" in refused.stderr
    assert sorted(path.name for path in notes.iterdir()) == ["checkpoints", "tale.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("form", ["hf", "gguf"])
def test_a_signal_leaves_nothing(forks: Forks, notes: Path, form: str, number: signal.Signals) -> None:
    process = forks.start("export", "notes", "--to", form, cwd=notes)
    while not any(".tmp" in path.name for path in notes.iterdir()):
        assert forks.wait(process, 0) is None
        time.sleep(0.001)
    os.kill(process, number)
    assert exit_code(forks.wait(process)) == 128 + number
    assert sorted(path.name for path in notes.iterdir()) == ["checkpoints", "tale.txt"]


def test_a_name_that_is_no_text_is_refused(mypt: Mypt, notes: Path) -> None:
    refused = mypt("export", "notes", "--out", "x\udcffy")
    assert refused.returncode == 2
    assert "not valid UTF-8, so other programs cannot open it" in refused.stderr


def test_an_exported_model_is_imported_and_trained_on(mypt: Mypt, notes: Path) -> None:
    assert mypt("export", "notes").returncode == 0
    done = mypt("import", "notes-hf")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("notes-hf -> checkpoints/notes-hf/step-00000000: family modern, ")
    assert "Checked by transformers " in done.stderr
    texts = [
        mypt("generate", name, "-p", "The", "--temperature", "0", "-n", "9", "-q") for name in ("notes", "notes-hf")
    ]
    assert texts[0].stdout == texts[1].stdout != ""
    assert mypt("verify", "notes-hf").returncode == 0
    again = mypt("import", "notes-hf")
    assert again.returncode == 4
    assert "there is a model already" in again.stderr
    for arguments in (["--model-name", "notes-hf"], ["--init-from-model", "notes-hf", "--model-name", "more"]):
        run = mypt(
            "train", "tale.txt", *arguments, "--max-iters", "2", "--eval-iters", "1", "--batch-size", "2", "--json"
        )
        assert run.returncode == 0, run.stderr
        assert "not with the bits" not in run.stderr
        first = next(event for event in map(json.loads, run.stdout.splitlines()) if event["event"] == "step")
        assert first["loss"] < 3.6, "weights by chance would be at 3.7"
    event = json.loads(mypt("import", "notes-hf", "--model-name", "third", "--json").stdout)
    assert (event["event"], event["target"]) == ("imported", "checkpoints/third/step-00000000")


def test_a_folder_that_is_no_model_is_one_message(mypt: Mypt, notes: Path) -> None:
    for folder in ("nowhere", ".", "tale.txt", "checkpoints/notes/step-00000003"):
        refused = mypt("import", folder, "--model-name", "new")
        assert refused.returncode == 4, refused.stderr
        assert refused.stderr.startswith("Error: ")
    assert not (notes / "checkpoints/new").exists()
    assert mypt("import", "..", "--model-name", "a/b").returncode == 2


def test_files_of_the_user_are_no_libraries(mypt: Mypt, notes: Path) -> None:
    for name in ("xllamacpp.py", "json.py", "mypt.py"):
        (notes / name).write_text("raise RuntimeError('a file of the user')\n")
    done = mypt("export", "notes", "--to", "gguf", env={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
