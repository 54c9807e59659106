"""mypt generate --mode chat, as a user drives it: through a pipe, and at a terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from conftest import clean_environment
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.run import RunConfig

COMMAND = (sys.executable, "-m", "mypt", "generate", "model", "--mode", "chat", "-n", "12", "-t", "0")


@pytest.fixture(autouse=True)
def trained(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    list(train(tiny_run, directory))


def said(
    folder: Path, lines: str, *options: str, env: dict[str, str] | None = None, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        cwd=folder, env=clean_environment() | (env or {}), input=lines, text=True, errors="surrogateescape",
        stdout=stdout, stderr=subprocess.PIPE, timeout=120, check=False,
    )  # fmt: skip


def test_each_line_is_answered_and_the_history_is_kept(tmp_path: Path) -> None:
    run = said(tmp_path, "The river\nThe house \\\nkeeps\n/save all.txt\n")
    assert run.returncode == 0, run.stderr
    assert "is no assistant" in run.stderr
    first, second = run.stdout.splitlines()[:2]
    history = (tmp_path / "all.txt").read_text()
    assert history.startswith(f"The river\n{first}")
    assert f"The house \nkeeps\n{second}" in history


def test_mistakes_are_told_and_the_chat_goes_on(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("mine")
    settings = "/set temperature -1\n/set nothing\n/set top-k\n"
    saves = "/save there.txt\n/save ~nobody-of-this-name/x\n/save a\0b\n"
    run = said(tmp_path, "/nosuch\n" + settings + saves + "Ωmega\nThe loss\r\n/quit\nThe end\n")
    assert run.returncode == 0
    told = ("/nosuch: not a command", "allowed", "/set nothing: no such setting", "/set top_k null")
    for words in (*told, "there.txt: is there already", "Ω"):
        assert words in run.stderr
    assert run.stdout.endswith("\n")
    assert len(run.stdout.strip().splitlines()) <= 1  # one answer, which may be blank
    assert (tmp_path / "there.txt").read_text() == "mine"
    assert "Traceback" not in run.stderr


def test_json_gives_one_object_for_each_answer(tmp_path: Path) -> None:
    run = said(tmp_path, "The river\n//The house\n", "--json", "-q", "--unknown", "skip")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [answer["sample"] for answer in answers] == [0, 0]
    assert answers[0]["prompt"] == "The river\n"
    assert answers[1]["prompt"].endswith("/The house\n")
    assert "assistant" not in run.stderr


@pytest.mark.parametrize("option", [("--prompts", "-"), ("--num-samples", "2"), ("--turn", "no place")])
def test_what_a_chat_cannot_do_is_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    run = said(tmp_path, "The river\n", *option)
    assert run.returncode == 2
    assert run.stdout == ""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_byte_ends_a_chat(tmp_path: Path, encoding: str) -> None:
    lines = "The river\n\udcff\udcc3\nThe naïve house\n/save all.txt\n"
    run = said(tmp_path, lines, "--unknown", "skip", env={"PYTHONIOENCODING": encoding})
    assert run.returncode == 0, run.stderr
    assert "\ufffd\ufffd\n" in (tmp_path / "all.txt").read_text(encoding="utf-8")
    assert "The naïve house\n" in (tmp_path / "all.txt").read_text(encoding="utf-8")


def test_where_answers_cannot_be_written_the_chat_ends(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        run = said(tmp_path, "The river\nThe house\n", "-q", stdout=full)
    assert run.returncode == 1
    assert run.stderr == "Error: standard output: cannot write (No space left on device)\n"


def test_a_beginning_that_the_model_cannot_read_is_told_at_once(tmp_path: Path) -> None:
    run = said(tmp_path, "The river\n", "--prompt", "Ω")
    assert run.returncode == 3
    assert "Ω" in run.stderr
    assert run.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="signals of its own")
def test_ctrl_c_ends_the_answer_and_not_the_chat(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "-n", "1000000", "--stop", "never", "--unknown", "skip"],
        cwd=tmp_path, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("The river\n")
    process.stdin.flush()
    assert process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    rest, errors = process.communicate("/set max-new-tokens 5\n/save kept.txt\nThe end\n", timeout=60)
    assert process.returncode == 0, errors
    history = (tmp_path / "kept.txt").read_text()
    assert history.startswith("The river\n")
    assert len(history) >= 30
    assert rest.splitlines()[-1]
    assert "Traceback" not in errors
