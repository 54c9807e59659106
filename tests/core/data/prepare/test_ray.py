"""Ray only places the work: the bytes are those of this machine, also when its workers are killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import clean_environment
from preparation import fingerprints, write_jsonl
from support import Mypt, tale

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc"),
]

ARGUMENTS = ("texts.jsonl", "--tokenization", "byte", "--tokens-per-shard", 4_000_000, "--workers", 2)


@pytest.fixture
def folder(tmp_path: Path, mypt: Mypt) -> Path:
    """Some units of text, and the dataset that this machine makes of them."""
    texts = [tale(100, seed=seed) * (seed % 9) for seed in range(200)]
    write_jsonl(tmp_path / "texts.jsonl", texts * 10)
    made = mypt("prepare-dataset", *ARGUMENTS, "--out-dir", "local")
    assert made.returncode == 0, made.stderr
    return tmp_path


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return found
    for child in children:
        found += [child, *descendants(child)]
    return found


def busy_workers(pid: int) -> list[int]:
    # Ray names its processes after what they do.
    names: dict[int, bytes] = {}
    for child in descendants(pid):
        try:
            names[child] = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
    return [child for child, name in names.items() if name.startswith(b"ray::_do")]


@pytest.mark.long
def test_a_killed_ray_worker_is_replaced_and_the_bytes_are_the_same(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mypt", "prepare-dataset", *map(str, ARGUMENTS), "--out-dir", "far", "--engine", "ray"],
        cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    killed: set[int] = set()
    while process.poll() is None and len(killed) < 2:
        for worker in busy_workers(process.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        time.sleep(0.02)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert killed
    assert fingerprints(folder / "far") == fingerprints(folder / "local")
    assert {path.name for path in folder.iterdir()} == {"texts.jsonl", "local", "far"}


def test_a_cluster_that_is_not_there_is_told_at_once(folder: Path, mypt: Mypt) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        refused = mypt("prepare-dataset", *ARGUMENTS, "--out-dir", "far", "--engine", "ray", "--ray-address", address)
    assert refused.returncode == 3
    assert f"--ray-address {address}" in refused.stderr
    assert not (folder / "far.partial").exists()
