"""mypt train, as a user drives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forking import Forks
from support import Mypt

TINY = ("--n-layer", "2", "--n-head", "2", "--n-embd", "16", "--block-size", "32", "--batch-size", "4")
SHORT = (*TINY, "--tokenization", "char", "--eval-interval", "10", "--eval-iters", "2")


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_train_generate_inspect_from_nothing(mypt: Mypt, text_file: Path, tmp_path: Path, family: str) -> None:
    trained = mypt("train", text_file, "--model-name", "tale", *SHORT, "--family", family, "--max-iters", "20")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    for word in ("training.learning_rate", "model", "epochs", "memory", "step 20/20", "bits/byte", "Done"):
        assert word in trained.stderr
    assert "\x1b" not in trained.stderr
    state = tmp_path / "checkpoints" / "tale" / "step-00000020"
    assert sorted(path.name for path in state.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
        "training_state.json",
    ]
    lines = [json.loads(line) for line in (tmp_path / "checkpoints/tale/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(1, 21))
    assert [line["step"] for line in lines if line["event"] == "evaluated"] == [10, 20]

    written = mypt("generate", "--model-name", "tale", "--prompt", "The ", "--max-new-tokens", "50", "--quiet")
    assert written.returncode == 0, written.stderr
    assert len(written.stdout) == 51  # past the window
    report = json.loads(mypt("inspect", "tale", "--json").stdout)
    assert report["step"] == 20
    assert (report["config"]["n_layer"], report["config"]["family"]) == (2, family)
    assert report["parameters"] == json.loads(mypt("params", "tale", "--json").stdout)["parameters"]


def test_the_same_command_says_that_the_run_is_complete(mypt: Mypt, text_file: Path) -> None:
    command = ("train", text_file, *SHORT, "--max-iters", "3")
    mypt(*command)
    again = mypt(*command)
    assert again.returncode == 0
    assert "complete at step 3" in again.stderr
    longer = mypt("train", "--max-iters", "5", "--json")  # the model remembers its shape and its text
    assert [json.loads(line)["step"] for line in longer.stdout.splitlines() if '"event": "step"' in line] == [4, 5]


def test_a_number_of_tokens_becomes_a_number_of_steps(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    command = ("train", text_file, *SHORT, "--optimizer", "muon", "--schedule", "wsd")
    shown = mypt(*command, "--until-tokens", "20x", "--dry-run")
    row = next(line.split() for line in shown.stdout.splitlines() if line.startswith("training.max_iters"))
    assert row[1:] == ["-", "--until-tokens", "or", "--for"]
    mypt(*command, "--until-tokens", "1k")
    assert (tmp_path / "checkpoints" / "default" / "step-00000008").is_dir(), (
        "8 steps of 128 tokens are the first 1,000"
    )
    mypt(*command, "--until-tokens", "1.5k")
    assert (tmp_path / "checkpoints" / "default" / "step-00000012").is_dir()


def test_a_signal_saves_and_the_same_command_ends_with_the_same_bits(
    mypt: Mypt, text_file: Path, tmp_path: Path
) -> None:
    command = ("train", str(text_file), *SHORT, "--max-iters", "300", "--dropout", "0.1")
    assert mypt(*command, "--model-name", "unbroken").returncode == 0
    metrics = tmp_path / "checkpoints" / "stopped" / "metrics.jsonl"
    child = subprocess.Popen(
        [sys.executable, "-m", "mypt", *command, "--model-name", "stopped"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MYPT_DEVICE": "cpu"},
    )
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.read_text().count("\n") > 15) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, prose = child.communicate(timeout=60)
    assert child.returncode == 143, prose
    assert "Go on with:" in prose
    assert "--model-name stopped" in prose
    stopped_at = max(int(path.name[5:]) for path in metrics.parent.glob("step-*"))
    assert 15 <= stopped_at < 300
    resumed = mypt(*command, "--model-name", "stopped")
    assert resumed.returncode == 0, resumed.stderr
    assert f"from step {stopped_at} to 300" in resumed.stderr
    ends = [tmp_path / "checkpoints" / name / "step-00000300" for name in ("unbroken", "stopped")]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (ends[0] / file).read_bytes() == (ends[1] / file).read_bytes()


def test_another_architecture_is_refused_with_exit_4(mypt: Mypt, text_file: Path) -> None:
    mypt("train", text_file, *SHORT, "--max-iters", "2")
    refused = mypt("train", text_file, *SHORT, "--max-iters", "4", "--n-layer", "3")
    assert refused.returncode == 4
    assert "n_layer = 3 (saved: 2)" in refused.stderr
    assert "--fresh" in refused.stderr


def test_fresh_starts_anew_and_keeps_the_old(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    mypt("train", text_file, *SHORT, "--max-iters", "2")
    anew = mypt("train", text_file, *SHORT, "--max-iters", "2", "--n-layer", "3", "--fresh")
    assert anew.returncode == 0, anew.stderr
    assert "set aside" in anew.stderr
    assert [path.name.split("-")[0] for path in sorted((tmp_path / "checkpoints").glob("[!.]*"))] == [
        "default",
        "default.old",
    ]


def test_init_from_model_takes_shape_and_tokenizer(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    mypt("train", text_file, *SHORT, "--max-iters", "2", "--model-name", "base")
    child = mypt(
        "train",
        text_file,
        "--model-name",
        "child",
        "--init-from-model",
        "base",
        "--max-iters",
        "2",
        "--batch-size",
        "4",
    )
    assert child.returncode == 0, child.stderr
    state = json.loads((tmp_path / "checkpoints/child/step-00000002/training_state.json").read_text())
    assert state["initialized_from"] == "base"
    missing = mypt("train", text_file, "--model-name", "other", "--init-from-model", "nobody")
    assert missing.returncode == 4
    assert "nobody" in missing.stderr


def test_dry_run_shows_every_value_with_its_source_and_does_nothing(
    mypt: Mypt, text_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.json").write_text('{"model": {"n_layer": 3}, "training": {"seed": 4, "max_iters": 7}}')
    shown = mypt(
        "train",
        "--config-file",
        "own.json",
        "--input-file",
        text_file,
        "--max-iters",
        "9",
        "--set",
        "training.weight_decay=0.05",
        "--dry-run",
        env={"MYPT_BATCH_SIZE": "5"},
    )
    assert shown.returncode == 0, shown.stderr
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if "." in line.split()[0]}
    assert rows["model.n_layer"] == ["3", "own.json"]
    assert rows["training.max_iters"] == ["9", "flag"]
    assert rows["training.batch_size"] == ["5", "environment"]
    assert rows["training.weight_decay"] == ["0.05", "--set"]
    assert rows["training.beta1"] == ["0.9", "default"]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "model.n_layr=3"), "did you mean model.n_layer?"),
        (("--set", "weight_decay=3"), "did you mean training.weight_decay?"),
        (("--set", "training.learning_rate=NaN"), "training.learning_rate = NaN"),
        (("--learning-rate", "-1"), "allowed: number > 0 and ≤ 10"),
        (("--learning-rate", "nan"), "finite number"),
        (("--n-embd", "100", "--n-head", "7"), "n_embd = 100 is not divisible by n_head = 7"),
        (("--set", "model.n_kv_head=1"), "family gpt2 has no n_kv_head (families that have it: modern)"),
        (("--family", "modern", "--bias"), "family modern has no bias"),
        (("--family", "qwen"), "allowed: gpt2, modern, mypt-v1"),
        (("--set", "training.max_iters=1e309"), "training.max_iters"),
        (("--set", "no equals"), "should look like"),
        (("--config-file", "smal"), "Did you mean small?"),
        (("--tokenization", "gpt5"), "allowed: gpt2, char, byte"),
        (("--max-itres", "5"), "--max-iters"),
        (("--dataset-dir", "x"), "not both"),
        (("--model-name", "../x"), "not allowed"),
        (("--max-iters", "many"), "--max-iters"),
        (("--max-iters", "5", "--until-tokens", "10M"), "give one of them"),
        (("--set", "training.max_iters=5", "--for", "45m"), "give one of them"),
        (("--until-tokens", "10M", "--for", "45m"), "give one of them"),
        (("--until-tokens", "many"), "--until-tokens many: should be tokens"),
        (("--until-tokens", "0x"), "--until-tokens 0x: should be tokens"),
        (("--until-tokens", "1e99", "--tokenization", "char"), "the length of the run: max_iters"),
        (("--for", "soon"), "--for soon: should be a duration"),
        (("--optimizer", "sgd"), "allowed: adamw, muon"),
        (("--schedule", "step"), "allowed: cosine, linear, wsd"),
    ],
)
def test_what_cannot_be_meant_is_one_message_and_exit_2(
    mypt: Mypt, text_file: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = mypt("train", text_file, *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_text_is_a_usage_error(mypt: Mypt) -> None:
    refused = mypt("train")
    assert refused.returncode == 2
    assert "no text to train on" in refused.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"ab\xffcd", "byte 2 (0xff)"),
        ("héllo".encode("utf-16"), "UTF-16"),
        (b"short", "one block needs 33"),
    ],
)
def test_unfit_text_is_exit_3_naming_what_is_wrong(mypt: Mypt, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    refused = mypt("train", "bad.txt", *SHORT)
    assert refused.returncode == 3
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_invalid_bytes_can_be_replaced(mypt: Mypt, text_file: Path) -> None:
    text_file.write_bytes(text_file.read_bytes() + b"\xff")
    assert mypt("train", text_file, *SHORT, "--max-iters", "1", "--encoding-errors", "replace").returncode == 0


def test_folders_globs_and_plain_arguments_are_all_read(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    for name in ("one.txt", "two.md"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    run = mypt("train", "folder", "--input_file", "folder/*.md", text_file, *SHORT, "--max-iters", "1", "--json")
    assert run.returncode == 0, run.stderr
    plan = next(json.loads(line) for line in run.stdout.splitlines() if '"planned"' in line)
    assert plan["train_tokens"] + plan["val_tokens"] == 3 * len(text_file.read_text(encoding="utf-8"))


def test_json_prints_events_alone(mypt: Mypt, text_file: Path) -> None:
    run = mypt("train", text_file, *SHORT, "--max-iters", "2", "--json")
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert [event["event"] for event in events] == [
        "text_read",
        "note",
        "planned",
        "step",
        "step",
        "evaluated",
        "saved",
        "finished",
    ]
    assert {"step", "loss", "tokens_per_s"} <= set(events[3])
    assert "val_loss" in events[5]
    assert run.stderr == ""


def test_a_gpt2_model_trains_on_a_prepared_dataset(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    made = mypt("prepare-dataset", text_file, "--out-dir", "set")
    assert made.returncode == 0, made.stderr
    run = mypt("train", "--dataset-dir", "set", *TINY, "--max-iters", "2")
    assert run.returncode == 0, run.stderr
    config = json.loads((tmp_path / "checkpoints/default/step-00000002/config.json").read_text())
    assert config["vocab_size"] == 50_304


def test_a_locked_model_is_exit_75(mypt: Mypt, forks: Forks, text_file: Path, tmp_path: Path) -> None:
    first = forks.start("train", text_file, *SHORT, "--max-iters", "100000", cwd=tmp_path)
    try:
        metrics = tmp_path / "checkpoints/default/metrics.jsonl"
        while not metrics.is_file():
            assert forks.wait(first, 0.05) is None
        second = mypt("train", text_file, *SHORT)
        assert second.returncode == 75
        assert f"process {first}" in second.stderr
    finally:
        os.kill(first, signal.SIGKILL)
        forks.wait(first)
    assert mypt("train", text_file, *SHORT, "--max-iters", "100000", "--dry-run").returncode == 0


def test_a_stop_saves_although_nobody_reads_stderr_any_more(text_file: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "mypt", "train", str(text_file), *SHORT, "--max-iters", "100000", "--json"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"MYPT_DEVICE": "cpu"},
    )  # fmt: skip
    assert child.stderr is not None
    child.stderr.close()
    metrics = tmp_path / "checkpoints/default/metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text().count("\n") > 15) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (metrics.parent / f"step-{last:08d}" / "manifest.json").is_file()


def test_a_global_batch_in_tokens_is_whole_sequences_in_pieces_that_are_told(
    mypt: Mypt, text_file: Path, tmp_path: Path
) -> None:
    command = ("train", text_file, *SHORT[:8], *SHORT[10:], "--max-iters", "2")
    trained = mypt(*command, "--global-batch-tokens", "8.192k")
    assert trained.returncode == 0, trained.stderr
    assert "global batch 8,192 tokens = 2 x 128 sequences of 32" in trained.stderr
    state = json.loads((tmp_path / "checkpoints/default/step-00000002/training_state.json").read_text())
    assert (state["training"]["batch_size"], state["training"]["micro_batch_size"]) == (256, 128)
    shown = mypt(*command, "--global-batch-tokens", "8192", "--fresh", "--dry-run").stdout.splitlines()
    rows = [" ".join(line.split()) for line in shown]
    assert "training.batch_size 256 --global-batch-tokens" in rows
    assert any(row.startswith("training.micro_batch_size") and row.endswith("the memory decides") for row in rows)
    own = mypt(*command, "--global-batch-tokens", "320", "--micro-batch-size", "4", "--fresh")
    assert "global batch 320 tokens = 10 sequences of 32, up to 4 at once" in own.stderr
    for arguments, told in (
        (("1000",), "(nearest: 992 (=31 x 32) or 1,024 (=32 x 32))"),
        (("1024", "--batch-size", "4"), "--batch-size and --global-batch-tokens each say"),
    ):
        refused = mypt(*command, "--global-batch-tokens", *arguments)
        assert refused.returncode == 2
        assert told in " ".join(refused.stderr.split())
