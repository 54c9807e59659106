"""Memory does not grow with the text: not with many files, nor with one line of 200 MB."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import clean_environment
from mypt.records.dataset import read_dataset_manifest
from support import tale

MIB = 2**20
CEILING_BYTES = 24 * MIB
LINE_BYTES = 200 * MIB

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="measures processes in /proc")

# The peak of this process alone, or of one of its workers: each tells its own when it ends.
MEASURE = """
import atexit, os, pathlib
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path(os.environ["PEAKS"], str(os.getpid())).write_text(status.split("VmHWM:")[1].split()[0])
atexit.register(peak)
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A line of 200 MB that does not end, and 60 MB of lines and records: 264 MiB."""
    folder = tmp_path / "texts"
    folder.mkdir()
    words = tale(20_000).replace("\n", " ").encode()
    with (folder / "line.txt").open("wb") as file:
        for _ in range(LINE_BYTES // len(words) + 1):
            file.write(words)
    record = b'{"text": "%s"}\n' % words[:2000].replace(b"\xc3", b"x").replace(b"\xaf", b"x").replace(b"\xa9", b"x")
    (folder / "records.jsonl").write_bytes(record * (64 * MIB // len(record)))
    return folder


def peaks(folder: Path, *arguments: object) -> list[int]:
    # The largest resident size of every process of one command, in bytes, from the smallest to the largest.
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(MEASURE)
    shutil.rmtree(folder / "peaks", ignore_errors=True)
    (folder / "peaks").mkdir()
    search = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-m", "mypt", "prepare-dataset", *map(str, arguments), "--tokenization", "byte"],
        cwd=folder, env=clean_environment() | {"PYTHONPATH": search, "PEAKS": str(folder / "peaks")},
        capture_output=True, encoding="utf-8", timeout=200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return sorted(1024 * int(path.read_text()) for path in (folder / "peaks").iterdir())


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_a_text_more_than_ten_times_the_ceiling_stays_below_it(tmp_path: Path, corpus: Path, workers: int) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(tale(100))
    before = peaks(tmp_path, "a.txt", "b.txt", "--out-dir", "small", "--workers", 1)
    found = peaks(tmp_path, "texts", "--out-dir", "large", "--workers", workers)
    manifest = read_dataset_manifest(tmp_path / "large")
    assert manifest.counts.text_bytes > 10 * CEILING_BYTES
    assert len(found) == (1 if workers == 1 else 1 + 2 * workers)
    assert found[-1] - before[-1] < CEILING_BYTES
