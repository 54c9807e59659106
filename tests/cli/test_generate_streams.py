"""mypt generate, its prompts on stdin and its text on a terminal; only where processes fork."""

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.run import DataConfig, RunConfig

if TYPE_CHECKING:
    from forking import Forks

if not hasattr(os, "fork"):
    pytest.skip("no fork", allow_module_level=True)


def test_prompts_can_come_from_stdin_and_as_json_lines(
    forks: "Forks", tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    list(train(tiny_run, directory))
    source = tmp_path / "some.jsonl"
    source.write_text('{"prompt": "The\\nmodel"}\n{"id": 7, "prompt": ""}\n')
    command = ("generate", "model", "--prompts", "-", "-n", "5", "-q")
    run = forks.run(*command, cwd=tmp_path, stdin=source)
    assert (run.returncode, run.stderr) == (0, "")
    assert [json.loads(line)["prompt"] for line in run.stdout.splitlines()] == ["The\nmodel", ""]
    empty = forks.run(*command, cwd=tmp_path)
    assert empty.returncode == 3
    assert "standard input: holds no prompts" in empty.stderr


@pytest.mark.parametrize("raw", [False, True])
def test_a_terminal_is_sent_control_characters_only_where_that_is_wanted(
    forks: "Forks", tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path, *, raw: bool
) -> None:
    from terminals import Terminal

    data = DataConfig(input_files=tiny_run.data.input_files, tokenization="byte")
    list(train(tiny_run.model_copy(update={"data": data}), ModelDirectory(directory.path.parent, "bytes")))
    command = ("generate", "bytes", "-t", "100", "-n", "400")
    text = json.loads(forks.run(*command, "--json", cwd=tmp_path).stdout)["text"]
    acting = {ord(char) for char in text if char < " "} - set(b"\0\t\n\r")
    assert len(acting) > 2
    shown = {}
    for name, more in {"text": ("--quiet",), "prompt": ("--prompt", "\x1b[7mThe")}.items():
        terminal = Terminal()
        process = terminal.begin(forks, tmp_path, *command, *more, *(["--raw"] if raw else []))
        assert forks.wait(process) == 0
        shown[name] = terminal.all_shown()
        terminal.close()
    assert acting & set(shown["text"]) == (acting if raw else set())
    assert (b"\x1b[7mThe" in shown["prompt"]) == raw
    assert (rb"\x1b[7mThe" in shown["prompt"]) != raw


def test_ctrl_c_ends_the_line_too(
    tiny_run: RunConfig, directory: ModelDirectory, forks: "Forks", tmp_path: Path
) -> None:
    list(train(tiny_run, directory))
    text, prose = tmp_path / "text", tmp_path / "prose"
    for path in (text, prose):
        path.touch()
    command = ("generate", "model", "-n", "1000000", "--stop", "never", "--prompt", "The")
    process = forks.start(*command, cwd=tmp_path, streams=(text, prose))
    deadline_s = time.monotonic() + 60
    while text.stat().st_size < 100:
        assert forks.wait(process, 0) is None, prose.read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    assert forks.wait(process) == 128 + signal.SIGINT
    assert text.read_bytes().endswith(b"\n")
    assert "Traceback" not in prose.read_text()
