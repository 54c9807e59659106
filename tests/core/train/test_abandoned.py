"""A program that ends in the middle of a run."""

import subprocess
import sys
from pathlib import Path

from conftest import clean_environment
from mypt.core.checkpoint.store import ModelDirectory

PROGRAM = """
import mypt
shape = {"model.n_layer": 1, "model.n_head": 1, "model.n_embd": 8, "model.block_size": 8, "data.tokenization": "char"}
events = mypt.train("tale.txt", preset="tiny", settings=shape)
for event in events:
    if event.event == "step" and event.step == 7:
        break
"""


def test_a_program_that_ends_in_the_middle_of_a_run_has_saved_it(text_file: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert ModelDirectory(tmp_path / "checkpoints", "default").states()[0].step == 7
