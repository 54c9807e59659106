"""A disk that refuses: the real command says so with bytes and path, loses nothing and leaves no part."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import clean_environment
from forking import Forks
from support import Mypt

SHAPE = ("--n-layer", "2", "--n-head", "2", "--n-embd", "64", "--block-size", "32", "--batch-size", "2")
TINY = (*SHAPE, "--tokenization", "char", "--eval-interval", "1000", "--eval-iters", "1", "--save-interval", "4")
# A state of this model has about 1.4 MB, its largest file 900 KB.
LIMIT_BYTES = 400 * 1024

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")


def states(model: Path) -> dict[str, str]:
    """Every file of every state, by its hash."""
    files = sorted(path for path in model.rglob("*") if path.is_file() and path.parent != model)
    return {str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_full_disk_warns_with_bytes_and_path_and_training_goes_on(
    mypt: Mypt, forks: Forks, text_file: Path, tmp_path: Path
) -> None:
    assert mypt("train", text_file, *TINY, "--max-iters", "4").returncode == 0
    model = tmp_path / "checkpoints" / "default"
    before = states(model)
    command = ("train", text_file, *TINY, "--max-iters", "15")
    run = forks.run(*command, cwd=tmp_path, file_limit_bytes=LIMIT_BYTES)
    assert "Traceback" not in run.stderr
    warnings = [line for line in run.stderr.splitlines() if "cannot save" in line]
    assert len(warnings) == 3, "at steps 8 and 12, and the error of the last save"
    for line in warnings:
        assert "checkpoints/default/" in line
        assert "needs 1." in line
        assert " free" in line
    assert run.returncode == 4, "the last steps are not on the disk"
    assert "The previous checkpoint is intact" in run.stderr
    steps = [json.loads(line)["step"] for line in (model / "metrics.jsonl").read_text().splitlines() if "step" in line]
    assert steps[-1] == 15, "training went on to its end"
    assert states(model) == before
    assert sorted(path.name for path in model.iterdir()) == ["metrics.jsonl", "step-00000004"]
    # With room again the same command goes on from the state that is there.
    again = mypt(*command)
    assert again.returncode == 0, again.stderr
    assert "from step 4 to 15" in again.stderr


def test_a_full_disk_stops_the_run_when_told_so(forks: Forks, text_file: Path, tmp_path: Path) -> None:
    command = ("train", text_file, *TINY, "--max-iters", "4000", "--on-save-error", "stop")
    run = forks.run(*command, cwd=tmp_path, file_limit_bytes=LIMIT_BYTES)
    assert run.returncode == 4, run.stderr
    assert run.stderr.count("cannot save") == 1
    assert [path.name for path in (tmp_path / "checkpoints/default").iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("on_error", ["warn", "stop"])
def test_a_log_that_cannot_grow_is_cut_at_a_whole_line(
    forks: Forks, text_file: Path, tmp_path: Path, on_error: str
) -> None:
    small = ("--n-embd", "2", "--block-size", "4", "--save-interval", "1000", "--eval-interval", "1000")
    command = ("train", text_file, *TINY, *small, "--max-iters", "200", "--on-save-error", on_error)
    run = forks.run(*command, cwd=tmp_path, file_limit_bytes=16 * 1024)
    assert "metrics.jsonl: cannot write it (File too large)" in run.stderr
    assert run.returncode == (0 if on_error == "warn" else 4), run.stderr
    model = tmp_path / "checkpoints/default"
    log = (model / "metrics.jsonl").read_text()
    assert log.endswith("}\n")
    assert all(json.loads(line)["event"] in {"step", "evaluated"} for line in log.splitlines())
    # The step that could not be logged is on the disk all the same.
    newest = max(int(path.name.removeprefix("step-")) for path in model.glob("step-*"))
    assert newest == 200 if on_error == "warn" else newest > json.loads(log.splitlines()[-1])["step"]


@pytest.mark.parametrize("place", ["a-file/models", "/proc/models", "/dev/full"])
def test_a_place_that_takes_no_folder_is_named_before_training(
    mypt: Mypt, text_file: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "a-file").write_text("not a folder")
    if not Path("/proc").is_dir() and place.startswith("/proc"):
        pytest.skip("no such place here")
    refused = mypt("train", text_file, *TINY, "--max-iters", "2", "--checkpoint-dir", place)
    assert refused.returncode == 4, refused.stderr
    assert place in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "step 1/2" not in refused.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir(mode=0o555)
    refused = mypt("train", text_file, *TINY, "--max-iters", "2")
    assert refused.returncode == 4
    assert "Permission denied" in refused.stderr
    assert "checkpoints" in refused.stderr


def test_a_small_disk_that_is_really_full(text_file: Path, tmp_path: Path) -> None:
    """A file system of 2 MB of its own, where this machine lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=2m none "$1" || exit 99; shift; exec "$@"'
    command = [sys.executable, "-m", "mypt", "train", str(text_file), *TINY, "--max-iters", "16"]
    run = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", str(disk), *command, "--checkpoint-dir", str(disk)],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=clean_environment(), timeout=120,
    )  # fmt: skip
    if run.returncode == 99 or "unshare" in run.stderr:
        pytest.skip("not allowed to mount here")
    assert run.returncode == 4, run.stderr
    assert "needs 1." in run.stderr
    assert "No space left" in run.stderr
