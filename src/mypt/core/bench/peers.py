"""Which other program can be measured, and how it would be used on this machine. No torch: nothing of it runs here."""

from pathlib import Path
from typing import Literal, NamedTuple

from mypt.errors import UsageError
from mypt.records.bench import MachineFacts
from mypt.records.run import RunConfig

_MODEL_FILE = "model.py"
_MARKS = ("class GPTConfig", "class GPT(", "def configure_optimizers")


class Peer(NamedTuple):
    """One way to run nanoGPT."""

    precision: Literal["fp32", "bf16"]
    compiled: bool

    @property
    def name(self) -> str:
        """What a row is called."""
        return f"nanoGPT {self.precision}{' compiled' if self.compiled else ''}"


def require_checkout(path: Path) -> Path:
    """Recognise a checkout by its model.py, without running it.

    Raises:
        UsageError: when it is none.
    """
    try:
        text = (path / _MODEL_FILE).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        text = ""
    if not all(mark in text for mark in _MARKS):
        raise UsageError(
            f"--against {path}: no checkout of nanoGPT (a folder with its model.py)",
            hint="Get one: git clone https://github.com/karpathy/nanoGPT",
        )
    return path.resolve()


def peers_on(machine: MachineFacts, precision: str) -> list[Peer]:
    """How it ships: compiled, in bf16 where the device has it. On a CPU its README has it in fp32 and not compiled.

    Args:
        machine: where it runs.
        precision: what was asked for of ours; 'fp32' keeps it in fp32 too.
    """
    is_narrow = machine.has_bf16 and precision != "fp32"
    if machine.kind == "cuda":
        return [Peer("bf16" if is_narrow else "fp32", compiled=True)]
    return [Peer("fp32", compiled=False), *([Peer("bf16", compiled=True)] if is_narrow else [])]


def has_shape(config: RunConfig) -> bool:
    """Whether nanoGPT has this architecture."""
    return config.model.family == "gpt2"
