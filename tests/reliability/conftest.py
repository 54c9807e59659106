"""What the proofs share: commands that start at once."""

import os
from collections.abc import Iterator

import pytest

from forking import Forks

if not hasattr(os, "fork"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A server of warm processes."""
    server = Forks()
    yield server
    server.close()
