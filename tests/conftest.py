"""What many tests need: a text, a tiny run, and the real command line in a child process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

# Tests run side by side, one process a core: more threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, RunConfig, TrainingConfig
from support import Mypt, tale

if TYPE_CHECKING:
    from forking import Forks


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is tried out in tests is not kept for the user."""
    os.environ["MYPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def text() -> str:
    """About 27,000 characters."""
    return tale(900)


@pytest.fixture
def text_file(tmp_path: Path, text: str) -> Path:
    """The text in a file."""
    path = tmp_path / "tale.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def tiny_run(text_file: Path) -> RunConfig:
    """Two layers, 16 wide, with dropout: a whole run in about a second."""
    return RunConfig(
        model=ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=32, dropout=0.1),
        training=TrainingConfig(
            batch_size=4, max_iters=60, learning_rate=1e-2, eval_interval=20, eval_iters=2, device="cpu"
        ),
        data=DataConfig(input_files=(str(text_file),), tokenization="char"),
    )


@pytest.fixture
def directory(tmp_path: Path) -> ModelDirectory:
    """Where a test's model lives."""
    return ModelDirectory(tmp_path / "checkpoints", "model")


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """A checkpoint directory with what the original program wrote."""
    root = tmp_path / "checkpoints"
    shutil.copytree(Path(__file__).parent / "legacy", root)
    return root


@pytest.fixture(scope="session")
def forks() -> Iterator["Forks"]:
    """A server of warm processes."""
    from forking import Forks

    server = Forks(clean_environment())
    yield server
    server.close()


@pytest.fixture
def mypt(request: pytest.FixtureRequest, tmp_path: Path) -> Mypt:
    """Run the real command in a child process that is warm, in an empty folder of its own."""
    if not hasattr(os, "fork"):
        return request.getfixturevalue("cold_mypt")
    forks: Forks = request.getfixturevalue("forks")

    def run(
        *arguments: object, cwd: Path = tmp_path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return forks.run(*arguments, cwd=cwd, env=env)

    return run


@pytest.fixture
def cold_mypt(tmp_path: Path) -> Mypt:
    """As `mypt`, from the first import on: for laws of the start, and of what Python and torch are told there."""

    def run(
        *arguments: object, cwd: Path = tmp_path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mypt", *map(str, arguments)],
            cwd=cwd,
            env=clean_environment() | dict(env or {}),
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that at the end no process waits for another."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the proofs have seen: `record_property("proven", ...)`."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    proven = [(report.nodeid, told) for report in reports for name, told in report.user_properties if name == "proven"]
    if proven:
        terminalreporter.section("proven")
    for test, told in sorted(set(proven)):
        terminalreporter.write_line(f"{test.rpartition('::')[2]}: {told}")


def clean_environment() -> dict[str, str]:
    """This environment without a caller's settings, in plain text, offline, on the CPU."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MYPT_", "FORCE_COLOR"))}
    kept |= {key: value for key, value in os.environ.items() if key == "MYPT_CACHE"}
    return kept | {"NO_COLOR": "1", "COLUMNS": "100", "MYPT_OFFLINE": "1", "MYPT_DEVICE": "cpu"}
