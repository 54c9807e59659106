"""What is told of a run."""

from dataclasses import dataclass

from mypt.events.base import Event


@dataclass(frozen=True, slots=True)
class RunPlanned(Event):
    """What is about to happen, before the first step."""

    event = "planned"
    model_name: str
    path: str
    parameters: int
    train_tokens: int
    val_tokens: int
    start_step: int
    max_iters: int
    tokens_per_step: int
    batch_size: int
    micro_batch_size: int
    micro_steps: int
    epochs: float
    coverage: float
    memory_bytes: int
    device: str
    precision: str
    compiled: bool
    kernels: bool
    tokenizer: str
    vocab_size: int


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """One optimizer update. `tokens_per_s` covers the steps since the last StepDone, and so does `mfu`.

    `mfu` is the share of the device's peak that the model needs; None where the peak is not known.
    """

    event = "step"
    step: int
    loss: float
    learning_rate: float
    tokens_per_s: float
    mfu: float | None
    tokens_seen: int
    elapsed_s: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class Skipped(Event):
    """A step was left out: its loss or its gradient was no number. Weights and moments are as before it.

    `samples` are the numbers of its first and last sample in the run's order; `texts` say where the first
    of them lie and how they begin.
    """

    event = "skipped"
    step: int
    problem: str
    samples: tuple[int, int]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluated(Event):
    """Mean loss in nats per token and bits per byte over the fixed validation windows."""

    event = "evaluated"
    step: int
    val_loss: float
    bits_per_byte: float
    windows: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Saved(Event):
    """A checkpoint was published. Writing took `elapsed_s`; training stood still for `stall_s` of it."""

    event = "saved"
    step: int
    path: str
    size_bytes: int
    elapsed_s: float
    stall_s: float


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The run ended: `reason` is 'completed', 'stopped', 'no improvement' or 'already complete'.

    `stalled_s` of `elapsed_s` training stood still for saves on the way; `mfu` goes with `tokens_per_s`; `spent_s` are
    the seconds of each part of the run, which add up to `elapsed_s`.
    """

    event = "finished"
    step: int
    loss: float | None
    val_loss: float | None
    bits_per_byte: float | None
    tokens_per_s: float
    mfu: float | None
    elapsed_s: float
    stalled_s: float
    spent_s: dict[str, float]
    reason: str
    path: str
