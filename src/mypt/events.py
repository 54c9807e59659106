"""What the engine tells. Every verb yields these; the roof draws them.

Frozen values of plain types only, so that an event prints as one JSON line (`as_json`).
"""

import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import ClassVar, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `event` is its name in JSON."""

    event: ClassVar[str] = "event"

    def as_json(self) -> str:
        """Give the event as one line of JSON, its name first."""
        return json.dumps({"event": self.event} | asdict(self), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something the user should know, though the work goes on."""

    event = "warning"
    message: str


@dataclass(frozen=True, slots=True)
class TextRead(Event):
    """Progress of turning text into tokens, in bytes of the sources."""

    event = "text_read"
    done_bytes: int
    total_bytes: int
    tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class PreparationPlanned(Event):
    """What prepare-dataset is about to do; sizes are estimates from a sample of the text."""

    event = "preparation_planned"
    path: str
    sources: int
    source_bytes: int
    units: int
    finished_units: int
    estimated_tokens: int
    estimated_bytes: int
    free_bytes: int
    workers: int
    encoder: str


@dataclass(frozen=True, slots=True)
class RankFinished(Event):
    """The share of one machine is done; the dataset is written by the command with --finish."""

    event = "rank_finished"
    rank: int
    world: int
    units: int
    path: str


@dataclass(frozen=True, slots=True)
class ShardsChecked(Event):
    """Progress of reading another program's shards: every id must be one of the tokenizer's."""

    event = "shards_checked"
    done_bytes: int
    total_bytes: int
    tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class ShardWritten(Event):
    """One token shard was published."""

    event = "shard_written"
    path: str
    tokens: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DatasetWritten(Event):
    """The dataset is whole: its manifest was written."""

    event = "dataset_written"
    path: str
    train_tokens: int
    val_tokens: int
    shards: int
    documents: int | None
    source_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class TextSampled(Event):
    """Progress of learning a tokenizer: how much was read, and how much of it was taken."""

    event = "text_sampled"
    done_bytes: int
    total_bytes: int
    sample_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class TokenizerWritten(Event):
    """A tokenizer was made and checked. `bytes_per_token` is measured on some of the sample."""

    event = "tokenizer_written"
    path: str
    kind: str
    vocab_size: int
    sample_bytes: int
    bytes_per_token: float
    elapsed_s: float


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


@dataclass(frozen=True, slots=True)
class SampleStarted(Event):
    """A sample begins; `prompt` is what it continues, as the user gave it, and `prompt_number` counts from 0."""

    event = "sample"
    prompt_number: int
    sample: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Token(Event):
    """Newly safe text of one sample. `token_id` is None for text that was held back."""

    event = "token"
    prompt_number: int
    sample: int
    token_id: int | None
    text: str


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How likely a token was: the natural logarithm of the model's own probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Generated(Event):
    """One whole sample. `tokens_per_s` counts the new tokens after the first, of this sample alone.

    Where they were asked for: `scores` are those of the new tokens, `likeliest` the highest at each of their places.
    `score` is what a beam is compared by.
    """

    event = "generated"
    prompt_number: int
    sample: int
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    stopped_by: str
    first_token_s: float
    tokens_per_s: float
    scores: tuple[TokenScore, ...] | None = None
    likeliest: tuple[tuple[TokenScore, ...], ...] | None = None
    score: float | None = None


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
class Noted(Event):
    """Something worth telling on the way."""

    event = "note"
    message: str


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
class Scoring(Event):
    """Progress of evaluating one model. `loss` is that of the tokens so far, nats per token."""

    event = "scoring"
    model_name: str
    done_tokens: int
    total_tokens: int
    loss: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """How well one model predicts a text: all tokens but the first, each once.

    `text` names files or datasets; `tokens` and `text_bytes` are those of the whole split; `perplexity` is None where
    it is larger than any number; `tokens_per_s` counts what was predicted.
    """

    event = "scored"
    model_name: str
    path: str
    step: int
    parameters: int
    tokenizer: str
    text: tuple[str, ...]
    split: str
    block_size: int
    stride: int
    loss: float
    perplexity: float | None
    bits_per_byte: float
    accuracy: float
    tokens: int
    text_bytes: int
    predicted_tokens: int
    predicted_bytes: int
    device: str
    elapsed_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class DatasetCompressed(Event):
    """All shards of a dataset are packed."""

    event = "dataset_compressed"
    path: str
    raw_bytes: int
    packed_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class BenchStarted(Event):
    """The machine was looked at: FLOP/s of a large matrix product, and the presets to be measured."""

    event = "bench_started"
    device: str
    precision: str
    matrix_flops_per_s: float
    presets: tuple[str, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class Measured(Event):
    """One child process has measured one row: 'start', 'training', 'generation', or what is compared with."""

    event = "measured"
    round: int
    preset: str
    what: str
    figures: dict[str, float | str | None]


@dataclass(frozen=True, slots=True)
class LeftOut(Event):
    """Something is not measured."""

    event = "left_out"
    name: str
    why: str


def result_of(work: Generator[Event, None, T]) -> T:
    """Do the work without telling of it, and give what it ends with."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
