"""What is told of files and models that are checked, or brought into another form."""

from dataclasses import dataclass

from mypt.events.base import Event


@dataclass(frozen=True, slots=True)
class FileVerified(Event):
    """One file was compared with its manifest; `problem` is empty where all is well."""

    event = "file_verified"
    path: str
    size_bytes: int
    problem: str


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """A dataset or a model was compared with its manifests; `damaged` names the bad files."""

    event = "verified"
    path: str
    files: int
    size_bytes: int
    damaged: tuple[str, ...]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Replaying(Event):
    """Steps of a run are done again, to compare."""

    event = "replaying"
    done_steps: int
    total_steps: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Replayed(Event):
    """The steps between two states were done again; `differing` names what has not the same bits."""

    event = "replayed"
    path: str
    first_step: int
    last_step: int
    compared: int
    differing: tuple[str, ...]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Quantized(Event):
    """The weights of a model were stored in 8 bits, as a model of their own."""

    event = "quantized"
    source: str
    target: str
    step: int
    source_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Imported(Event):
    """A model of another program became one of ours, which computes the same."""

    event = "imported"
    source: str
    target: str
    family: str
    parameters: int
    size_bytes: int
    checked_by: str
    largest_difference: float


@dataclass(frozen=True, slots=True)
class Converted(Event):
    """One legacy checkpoint was (or, in a dry run, would be) converted."""

    event = "converted"
    source: str
    target: str
    step: int
    parameters: int
    tokenizer: str
    has_optimizer: bool
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Exported(Event):
    """A model was written in the files of another program, which computes the same with it."""

    event = "exported"
    source: str
    target: str
    format: str
    precision: str
    step: int
    size_bytes: int
    checked_by: str
    largest_difference: float
