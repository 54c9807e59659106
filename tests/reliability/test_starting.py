"""Ctrl-C while a command is still loading: it ends without a word, whichever module was being imported."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from lives import Run
from stopping import Place

CHAOS = os.environ.get("MYPT_CHAOS") == "1"

# Counts the imports of a command, then runs it again and again and sends SIGINT at one of them, evenly spread;
# tells how each run ended and what it said.
INTERRUPTER = """
import json, os, signal, sys, tempfile

class Interrupter:
    def __init__(self, moment):
        self.moment, self.imports = moment, 0

    def find_spec(self, name, path=None, target=None):
        self.imports += 1
        if self.imports == self.moment:
            os.kill(os.getpid(), signal.SIGINT)

def run(moment):
    said, counted = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(said.fileno(), 2)
        sys.stderr = open(2, "w", closefd=False)
        sys.argv = ["mypt", *sys.argv[2:], "--model-name", "model"]
        from mypt.__main__ import main
        interrupter = Interrupter(moment)
        sys.meta_path.insert(0, interrupter)
        try:
            main()
        finally:
            os.write(counted.fileno(), str(interrupter.imports).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said.seek(0)
    counted.seek(0)
    return 128 - code if code < 0 else code, said.read().decode(), int(counted.read() or 0)

times = int(sys.argv[1])
_, _, imports = run(0)
for number in range(times):
    moment = 1 + imports * number // times
    print(json.dumps([moment, *run(moment)[:2]]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "times"),
    [(("inspect",), 16), (("generate",), 18 if CHAOS else 4), (("train", "--max-iters", "1"), 30 if CHAOS else 5)],
)
def test_an_interrupted_start_is_silent(place: Place, truth: Run, command: tuple[str, ...], times: int) -> None:
    shutil.copytree(truth.directory.path, place.folder / "checkpoints" / "model")
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTER, str(times), *command],
        cwd=place.folder,
        env=os.environ | {"MYPT_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600 if CHAOS else 120,
    )
    endings = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(endings) == times
    for moment, code, said in endings:
        assert code == 130, f"import {moment}: {said}"
        for word in ("Traceback", "KeyboardInterrupt", "Error", "ignored"):
            assert word not in said, f"import {moment}: {said}"
