"""Which other programs can be measured, and how they are run on this machine. No torch: nothing of theirs runs here."""

from pathlib import Path
from typing import Literal, NamedTuple

from mypt.errors import UsageError
from mypt.records.bench import MachineFacts
from mypt.records.run import RunConfig


class Program(NamedTuple):
    """A program, and by what a checkout of it is known."""

    name: str
    model_file: str
    marks: tuple[str, ...]
    address: str


class Checkout(NamedTuple):
    """A program and where it is."""

    program: Program
    path: Path


class Peer(NamedTuple):
    """One way to run a program."""

    checkout: Checkout
    precision: Literal["fp32", "bf16"]
    compiled: bool

    @property
    def name(self) -> str:
        """What a row is called."""
        return f"{self.checkout.program.name} {self.precision}{' compiled' if self.compiled else ''}"


PROGRAMS = (
    Program(
        "nanoGPT",
        "model.py",
        ("class GPTConfig", "class GPT(", "def configure_optimizers"),
        "https://github.com/karpathy/nanoGPT",
    ),
    Program(
        "litgpt",
        "litgpt/model.py",
        ("class GPT(", "litgpt.config"),
        "https://github.com/Lightning-AI/litgpt",
    ),
)


def require_checkout(path: Path) -> Checkout:
    """Recognise a checkout by the file with its model, without running it.

    Raises:
        UsageError: when it is none.
    """
    for program in PROGRAMS:
        try:
            text = (path / program.model_file).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            continue
        if all(mark in text for mark in program.marks):
            return Checkout(program, path.resolve())
    known = " or ".join(f"{program.name} (a folder with its {program.model_file})" for program in PROGRAMS)
    raise UsageError(
        f"--against {path}: no checkout of {known}",
        hint=f"Get one: {', or '.join(f'git clone {program.address}' for program in PROGRAMS)}",
    )


def peers_on(machine: MachineFacts, precision: str, checkout: Checkout) -> list[Peer]:
    """How a program is run at its best: compiled, in bf16 where the device has it; on a CPU in fp32 as written too.

    Args:
        machine: where it runs.
        precision: what was asked for of ours; 'fp32' keeps it in fp32 too.
        checkout: the program.
    """
    is_narrow = machine.has_bf16 and precision != "fp32"
    if machine.kind == "cuda":
        return [Peer(checkout, "bf16" if is_narrow else "fp32", compiled=True)]
    as_written = Peer(checkout, "fp32", compiled=False)
    return [as_written, *([Peer(checkout, "bf16", compiled=True)] if is_narrow else [])]


def has_shape(config: RunConfig) -> bool:
    """Whether the other programs have this architecture, or one of its size."""
    return config.model.family == "gpt2"
