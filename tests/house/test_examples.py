"""The examples run as they stand, in a folder of their own and without a network."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *arguments: str | Path, cwd: Path) -> str:
    child = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=cwd,
        env=os.environ | {"MYPT_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_train_and_write_writes_text(tmp_path: Path) -> None:
    told = run("train_and_write.py", "--steps", "6", cwd=tmp_path)
    assert "completed at step 6" in told
    assert len(told.split("It writes:\n")[1]) >= 100


def test_train_and_write_goes_on_with_the_users_text(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for steps, told in ((3, "completed at step 3"), (5, "completed at step 5"), (5, "already complete at step 5")):
        monkeypatch.setattr(sys, "argv", ["train_and_write.py", str(text_file), "--steps", str(steps)])
        runpy.run_path(str(EXAMPLES / "train_and_write.py"), run_name="__main__")
        assert told in capsys.readouterr().out
