"""mypt generate, as a user drives it."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

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


def test_compiled_code_writes_what_the_model_writes(mypt: Mypt, tmp_path: Path) -> None:
    wanted = ("generate", "model", "--prompt", "The ", "--temperature", "0", "--compile")
    plain, compiled = mypt(*wanted, "off"), mypt(*wanted, "auto")
    assert compiled.stdout == plain.stdout
    assert "compiled" not in plain.stderr
    if shutil.which("gcc") and torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}:
        assert "fp32, compiled" in compiled.stderr
    nothing = {"CC": "no-such-compiler", "MYPT_CACHE": str(tmp_path / "nothing")}
    assert mypt(*wanted, "auto", env=nothing).stdout == plain.stdout
    refused = mypt(*wanted, "on", env=nothing)
    assert refused.returncode == 2
    assert "no compiled code: " in refused.stderr


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
    assert "left out: " in answered.stderr
    assert "<Question> {prompt} </Question>" in refused.stderr


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


def test_each_prompt_of_a_file_is_one_line_of_json_in_its_order(mypt: Mypt, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfThe \r\n\r\nthe model\nThe ")
    run = mypt("generate", "model", "--prompts", "prompts.txt", "-n", "9", "--batch-size", "2", "--num-samples", "2")
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(each["prompt"], each["prompt_number"], each["sample"]) for each in found] == [
        (prompt, number, sample) for number, prompt in enumerate(["The ", "the model", "The "]) for sample in (0, 1)
    ]
    alone = mypt("generate", "model", "--prompt", "the model", "-n", "9", "--quiet").stdout
    assert found[2]["text"] + "\n" == alone
    assert "54 tokens in 6 samples" in run.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"\n \n", "holds no prompts"),
        (b"The\xff", "not UTF-8 (byte 3)"),
        (b'{"prompt": "The"}\nThe\n', "line 2"),
        (b'{"prompt": "The"\n{"prompt": "The"}\n', "line 1"),
        ("The\nΩmega\n".encode(), "prompt 2"),
    ],
)
def test_prompts_that_cannot_be_read_are_exit_3(mypt: Mypt, tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    refused = mypt("generate", "model", "--prompts", "prompts.txt")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--prompt", "The", "--prompts", "p.txt"), "--prompt and --prompts are both given"),
        (("--logprobs", "2"), "Add --json"),
        (("--beams", "2", "--temperature", "0.5"), "leaves nothing to chance"),
        (("--beams", "2", "--num-samples", "3"), "at most all of them"),
        (("--length-penalty", "2"), "beams above 1"),
        (("--beams", "2", "--logprobs", "2", "--json"), "logprobs = 0"),
        (("--min-p", "2"), "allowed"),
        (("--typical-p", "0"), "allowed"),
        (("--no-repeat-ngram", "0"), "allowed"),
        (("--repetition-penalty", "0"), "allowed"),
        (("--stop", ""), "allowed"),
        (("--quantize", "int8", "--precision", "bf16"), "allowed: fp32"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_exit_2(mypt: Mypt, arguments: tuple[str, ...], told: str) -> None:
    refused = mypt("generate", "model", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert told in " ".join(refused.stderr.split())


def test_log_probabilities_are_in_the_json(mypt: Mypt) -> None:
    run = mypt("generate", "model", "-p", "The ", "-n", "6", "--json", "--logprobs", "3", "--temperature", "0")
    (found,) = [json.loads(line) for line in run.stdout.splitlines()]
    assert [score["token_id"] for score in found["scores"]] == found["token_ids"]
    assert "".join(score["text"] for score in found["scores"]) == found["text"]
    assert [len(likeliest) for likeliest in found["likeliest"]] == [3] * 6
    assert [likeliest[0] for likeliest in found["likeliest"]] == found["scores"]
    assert all(0 < math.exp(score["logprob"]) <= 1 for score in found["scores"])
    assert "score" not in found
    plain = json.loads(mypt("generate", "model", "--json", "-n", "1").stdout)
    assert not {"scores", "likeliest", "score"} & set(plain)


def test_beams_come_best_first_with_their_scores(mypt: Mypt) -> None:
    command = ("generate", "model", "-p", "The ", "--beams", "4", "-n", "8")
    run = mypt(*command, "--num-samples", "3", "--json")
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    assert len({each["text"] for each in found}) == 3
    assert mypt(*command, "--quiet").stdout == found[0]["text"] + "\n"
    assert mypt(*command).stdout == "The " + found[0]["text"] + "\n"
