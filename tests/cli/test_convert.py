"""mypt convert-legacy, as a user of the original drives it."""

import json
from pathlib import Path

from support import Mypt


def test_a_converted_model_writes_the_originals_text(mypt: Mypt, legacy: Path) -> None:
    converted = mypt("convert-legacy", "--model_name", "bard_char")
    assert converted.returncode == 0, converted.stderr
    assert "step 300" in converted.stderr
    expected = json.loads((legacy / "bard_char/expected.json").read_text())
    written = mypt("generate", "bard_char", "-p", expected["prompt"], "--temperature", "0", "-n", "40", "-q")
    assert written.stdout == expected["greedy_text"] + "\n"


def test_training_goes_on_from_a_converted_model(mypt: Mypt, legacy: Path, text_file: Path) -> None:
    mypt("convert_legacy", "bard_char")
    letters = text_file.read_text(encoding="utf-8").translate(str.maketrans("", "", "é0123456789ïz"))
    text_file.write_text(letters, encoding="utf-8")
    run = mypt("train", text_file, "--model-name", "bard_char", "--max-iters", "303", "--json")
    assert run.returncode == 0, run.stderr
    steps = [json.loads(line) for line in run.stdout.splitlines() if '"event": "step"' in line]
    assert [step["step"] for step in steps] == [301, 302, 303]


def test_all_converts_each_and_dry_run_none(mypt: Mypt, legacy: Path) -> None:
    dry = mypt("convert-legacy", "--all", "--dry-run")
    assert dry.stderr.count("would convert") == 3
    assert not list(legacy.glob("*/step-*"))
    real = mypt("convert-legacy", "--all")
    assert real.returncode == 0, real.stderr
    assert len(list(legacy.glob("*/step-*"))) == 3
    again = mypt("convert-legacy", "--all")
    assert again.returncode == 0
    assert again.stderr.count("already converted") == 3


def test_one_file_by_path_or_by_name(mypt: Mypt, legacy: Path) -> None:
    assert mypt("convert-legacy", "--model_name", "bard_gpt2", "--checkpoint", "final.pt", "--dry-run").returncode == 0
    assert mypt("convert-legacy", "--checkpoint", "checkpoints/bard_gpt2/final.pt").returncode == 0
    assert list((legacy / "bard_gpt2").glob("step-*"))


def test_nothing_named_and_nothing_there_are_told_apart(mypt: Mypt, legacy: Path) -> None:
    assert mypt("convert-legacy").returncode == 2
    missing = mypt("convert-legacy", "--model-name", "nobody")
    assert missing.returncode == 4
    assert "no old checkpoint" in missing.stderr


def test_an_old_model_asks_to_be_converted(mypt: Mypt, legacy: Path) -> None:
    refused = mypt("generate", "--model-name", "bard_char")
    assert refused.returncode == 4
    assert "mypt convert-legacy --model-name bard_char" in refused.stderr
