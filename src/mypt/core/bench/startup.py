"""How long it takes until something happens: of torch alone, and from the shell to the first step."""

import json
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from mypt.core.bench.children import started
from mypt.errors import MyptError
from mypt.records.run import DataConfig, RunConfig

_LETTERS = 100_000
_MOST_SHOWN = 300
_WINDOWS = 40
"""Of text at least, so that a tenth of it holds one."""


def import_torch_s() -> float:
    """Seconds of a Python that imports torch and ends."""
    began_s = time.perf_counter()
    with started([sys.executable, "-c", "import torch"]) as child:
        code = child.wait()
    if code:
        raise MyptError(f"`import torch` ended with code {code}")
    return time.perf_counter() - began_s


def first_step_s(config: RunConfig) -> float:
    """Seconds from starting the real command, on a small text of bytes, until it tells of its first step.

    Raises:
        MyptError: when there was none.
    """
    with (
        TemporaryDirectory(prefix="mypt-bench-") as folder,
        TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
    ):
        command = [sys.executable, "-m", "mypt", "train", *_prepared(Path(folder), config)]
        began_s = time.perf_counter()
        with started(command, complaints, Path(folder)) as child:
            assert child.stdout is not None, "made with pipes"
            for line in child.stdout:
                if json.loads(line)["event"] == "step":
                    return time.perf_counter() - began_s
        complaints.seek(0)
        raise MyptError(f"mypt train made no step: {complaints.read().strip()[-_MOST_SHOWN:]}")


def _prepared(folder: Path, config: RunConfig) -> list[str]:
    size = max(_LETTERS, _WINDOWS * config.model.block_size)
    (folder / "text.txt").write_text("".join(random.Random(1).choices("abcdefgh \n", k=size)))  # noqa: S311 - any text
    # By itself a training may first try whether compiled steps are faster.
    compiles = "on" if config.training.compile == "on" else "off"
    training = config.training.model_copy(update={"compile": compiles})
    config.model_copy(update={"training": training, "data": DataConfig()}).write(folder / "config.json")
    return ["text.txt", "--config-file", "config.json", "--tokenization", "byte", "--json"]
