"""What `mypt bench` asks its child processes, what they answer, and what it says in the end."""

from collections.abc import Sequence
from statistics import median
from typing import Literal, Self

from pydantic import Field

from mypt.records.base import Record
from mypt.records.run import Precision, RunConfig


class BenchOptions(Record, frozen=True):
    """What is to be measured, and for how long."""

    configs: dict[str, RunConfig] = Field(description="Presets by name, smallest first; device and precision set.")
    choose: bool = Field(description="Leave out those whose steps take long on this machine.")
    seconds: float = Field(3.0, gt=0, le=3600, description="Of steps, or of tokens, in each child process.")
    rounds: int = Field(3, ge=1, le=1000, description="How often each row is measured; the rows take turns.")
    device: str = Field("auto", description="As in TrainingConfig.")
    precision: Precision = Field("auto", description="As in TrainingConfig.")
    against: tuple[str, ...] = Field((), description="Checkouts of other programs.")


class Job(Record, frozen=True):
    """What one child process is to measure."""

    task: Literal["survey", "training", "generation", "peer"]
    config: RunConfig = RunConfig()
    configs: dict[str, RunConfig] = Field(default_factory=dict, description="Of a survey: what may be measured.")
    seconds: float
    program: str = Field("", description="The name of a peer.")
    checkout: str = Field("", description="Of a peer.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Of a peer.")
    compiled: bool = Field(default=False, description="Of a peer.")


class MachineFacts(Record, frozen=True):
    """Where it was measured."""

    device: str
    kind: Literal["cpu", "cuda", "mps"]
    precision: str = Field(description="Of the matrix product.")
    has_bf16: bool
    matrix_flops_per_s: float = Field(description="Of a product of large square matrices.")
    torch: str
    mypt: str


class Survey(Record, frozen=True):
    """What there is, and what would be needed."""

    machine: MachineFacts
    free_bytes: int | None = Field(description="What others leave of the device's memory; null where nobody can say.")
    needed_bytes: dict[str, int] = Field(description="By the estimate, of each config's training, saves not included.")


class TrainingFigures(Record, frozen=True):
    """One child's training steps."""

    tokens_per_s: float = Field(description="By the median step.")
    peak_bytes: int = Field(description="On a GPU, of its memory.")
    precision: str = ""
    matrix_flops_per_s: float | None = Field(None, description="In this very process, in the same precision.")
    mfu: float | None = None


class GenerationFigures(Record, frozen=True):
    """One child's generation."""

    tokens_per_s: float = Field(description="Of the tokens after the first, one sample at a time.")
    first_token_s: float = Field(description="Median over the samples.")


class Spread(Record, frozen=True):
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Sum up what was measured; None where nothing was."""
        return cls(median=median(values), least=min(values), most=max(values)) if values else None


class PresetBench(Record, frozen=True):
    """What was measured of one preset."""

    name: str
    parameters: int
    batch_size: int
    block_size: int
    precision: str
    training_flops_per_token: int
    tokens_per_s: Spread | None = None
    matrix_share: Spread | None = Field(None, description="FLOP/s of a step, as a share of the matrix product's.")
    mfu: Spread | None = None
    peak_bytes: int | None = Field(None, description="Of the process that trains, the largest of all rounds.")
    estimated_bytes: int | None = Field(None, description="What the estimate says of it.")
    generation_tokens_per_s: Spread | None = None
    first_token_s: Spread | None = None


class PeerBench(Record, frozen=True):
    """What was measured of another program at the same shape and batch."""

    name: str
    preset: str
    tokens_per_s: Spread
    peak_bytes: int
    ratio: Spread | None = Field(None, description="Our speed divided by its own, round by round.")


class LeftOutEntry(Record, frozen=True):
    """What could not be measured."""

    name: str
    why: str


class BenchReport(Record, frozen=True):
    """What `bench` says."""

    schema_version: Literal[1] = Field(1, serialization_alias="schema")
    machine: MachineFacts | None
    rounds: int
    seconds: float
    import_torch_s: Spread | None = Field(description="`import torch` in a bare interpreter.")
    first_step_s: Spread | None = Field(description="From the shell to the first step of `first_step_preset`.")
    first_step_preset: str
    presets: tuple[PresetBench, ...]
    peers: tuple[PeerBench, ...]
    left_out: tuple[LeftOutEntry, ...]
