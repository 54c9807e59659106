"""What the proofs share: commands that start at once, and the run that they are compared with."""

import os
from pathlib import Path

import pytest

from forking import Forks
from lives import Run
from stopping import Place
from support import tale

if not hasattr(os, "fork"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def truth(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("truth")
    (folder / "tale.txt").write_text(tale(6000), encoding="utf-8")
    return Place(forks, folder).train_to_the_end("unbroken")


@pytest.fixture
def place(forks: Forks, truth: Run, tmp_path: Path) -> Place:
    """A folder of one test alone, with the same text."""
    (tmp_path / "tale.txt").symlink_to(truth.folder / "tale.txt")
    return Place(forks, tmp_path)
