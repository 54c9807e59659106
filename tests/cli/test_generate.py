"""mypt generate, as a user drives it."""

import json
from pathlib import Path

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.run import RunConfig
from support import Mypt


@pytest.fixture(autouse=True)
def trained(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    list(train(tiny_run, directory))


def test_the_prompt_and_its_continuation_stream_to_stdout(mypt: Mypt) -> None:
    run = mypt("generate", "model", "--prompt", "The model", "--max-new-tokens", "40", "--show-info")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("The model")
    assert "model: " in run.stderr
    assert "40 tokens" in run.stderr


def test_quiet_prints_the_continuation_and_nothing_else(mypt: Mypt) -> None:
    whole = mypt("generate", "model", "--prompt", "The ", "--seed", "5")
    quiet = mypt("generate", "model", "--prompt", "The ", "--seed", "5", "--quiet")
    assert quiet.stderr == ""
    assert whole.stdout == "The " + quiet.stdout


def test_json_gives_the_new_tokens_and_separate_times(mypt: Mypt) -> None:
    run = mypt(
        "generate", "model", "-p", "The ", "-n", "12", "--json", "--num-samples", "2", "--top-k", "5", "--top-p", "0.9"
    )
    samples = [json.loads(line) for line in run.stdout.splitlines()]
    assert [sample["sample"] for sample in samples] == [0, 1]
    for sample in samples:
        assert sample["prompt"] == "The "
        assert len(sample["token_ids"]) == 12 == len(sample["text"])
        assert {"tokens_per_s", "load_s", "first_token_s", "schema"} <= set(sample)


def test_a_stop_text_cuts_exactly(mypt: Mypt) -> None:
    whole = mypt("generate", "model", "--temperature", "0", "--quiet").stdout.rstrip("\n")
    stop = whole[8:11]
    cut = mypt("generate", "model", "--temperature", "0", "--quiet", "--stop", stop).stdout
    assert cut == whole[: whole.index(stop)] + "\n"


def test_qa_mode_skips_what_the_model_never_saw(mypt: Mypt) -> None:
    refused = mypt("generate", "model", "--mode", "qa", "--prompt", "Why?")
    assert refused.returncode == 3
    assert "--unknown skip" in refused.stderr
    answered = mypt("generate", "model", "--mode", "qa", "--prompt", "Why?", "--unknown", "skip", "-n", "20", "--quiet")
    assert answered.returncode == 0, answered.stderr


@pytest.mark.parametrize(
    "arguments", [("--temperature", "-1"), ("--top-p", "1.5"), ("--top-k", "0"), ("--mode", "chatty"), ("-n", "0")]
)
def test_settings_out_of_range_are_exit_2(mypt: Mypt, arguments: tuple[str, ...]) -> None:
    refused = mypt("generate", "model", *arguments)
    assert refused.returncode == 2
    assert "allowed" in refused.stderr


def test_a_damaged_state_falls_back_with_a_warning(mypt: Mypt, directory: ModelDirectory) -> None:
    weights = directory.states()[0].path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run = mypt("generate", "model", "--quiet")
    assert run.returncode == 0
    assert "model.safetensors" in run.stderr
    assert "trying the one before it" in run.stderr


def test_unknown_prompt_characters_are_named(mypt: Mypt) -> None:
    refused = mypt("generate", "model", "--prompt", "Ωmega")
    assert refused.returncode == 3
    assert "Ω" in refused.stderr


def test_a_model_can_be_found_through_the_environment(mypt: Mypt, directory: ModelDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run = mypt(
        "generate", "model", "-q", cwd=tmp_path / "elsewhere", env={"MYPT_CHECKPOINTS": str(directory.path.parent)}
    )
    assert run.returncode == 0, run.stderr
