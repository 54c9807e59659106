"""The evaluation verb: models and a text in; loss, bits per byte and accuracy of each model out.

open all models -> for each tokenizer: read the text -> for each model of it: load, slide windows over the split
"""

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from mypt.core.checkpoint.snapshot import Snapshot, open_snapshot, read_newest
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.sliding import SlidingWindows
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import TokenStream
from mypt.core.device import Device, choose_device, deterministic, shortage_told
from mypt.core.evaluate.loss import running_totals
from mypt.core.evaluate.score import Totals
from mypt.core.evaluate.text import Text, choose_text, read_split
from mypt.core.heap import keep_freed_memory
from mypt.core.model.gpt import GPT
from mypt.errors import DivergedError, MemoryShortageError, UsageError
from mypt.events import Event, Noted, Scored, Scoring, Warned
from mypt.records.evaluation import EvaluationConfig
from mypt.records.plan import STDIN
from mypt.units import several

_TOLD_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class _Entry:
    """A model that was found; its weights are loaded when its turn comes."""

    directory: ModelDirectory
    snapshot: Snapshot

    @property
    def name(self) -> str:
        return self.directory.name


@dataclass(frozen=True, slots=True)
class _Job:
    """A split in the tokens of one model."""

    text: Text
    corpus: Corpus
    stream: TokenStream
    config: EvaluationConfig
    device: Device

    def stride(self, block_size: int) -> int:
        return self.config.stride or block_size

    def sequences_at_once(self, block_size: int) -> int:
        return self.config.sequences_at_once(block_size, on_gpu=self.device.kind == "cuda")


def evaluate(config: EvaluationConfig, directories: Sequence[ModelDirectory]) -> Generator[Event]:
    """Score models on one text, each token but the first once, without dropout and in fp32.

    Yields `Scoring` on the way and `Scored` for each model: those of one tokenizer follow each other.

    Args:
        config: the text, and how it is scored.
        directories: at least one model; only read.

    Raises:
        CheckpointError: when one of the models is missing or has no whole state.
        UsageError: for a stride beyond a model's context, or a device this machine does not have.
        DataError: when the text is unfit, too short, or made by another tokenizer than a model's.
        MemoryShortageError: when so many sequences do not fit at once.
        DivergedError: when a loss is no number.
    """
    if not directories:
        raise UsageError("no model is named", hint="Name at least one.")
    with deterministic():
        device = choose_device(config.device, "fp32")
        if device.kind == "cpu":
            keep_freed_memory()
        entries = yield from _found(directories)
        _require_strides(config, entries)
        text = yield from choose_text(config, [entry.snapshot for entry in entries])
        groups = _by_tokenizer(entries)
        if len(groups) > 1:
            yield from _require_readable_again(text, config, groups)
        for group in groups:
            corpus, stream = yield from read_split(text, config, [entry.snapshot for entry in group])
            job = _Job(text, corpus, stream, config, device)
            for entry in group:
                yield from _score(entry, job)


def _found(directories: Sequence[ModelDirectory]) -> Generator[Event, None, list[_Entry]]:
    """Open every model before the first is scored: a name that fails must not cost the work on the others."""
    entries: list[_Entry] = []
    for directory in directories:
        warnings: list[str] = []
        entries.append(_Entry(directory, open_snapshot(directory, warnings.append)))
        yield from map(Warned, warnings)
    masked = [entry.name for entry in entries if entry.snapshot.training.training.document_mask]
    if masked:
        yield Noted(
            f"{', '.join(masked)}: trained with documents kept apart; here a window reads across their ends, "
            "so the loss is not training's own"
        )
    return entries


def _require_strides(config: EvaluationConfig, entries: Sequence[_Entry]) -> None:
    for entry in entries:
        most = entry.snapshot.config.block_size
        if config.stride is not None and config.stride > most:
            raise UsageError(
                f"--stride {config.stride:,}: windows of {entry.name} are {most:,} tokens long, and so some tokens "
                "would be left out",
                hint=f"Use 1 to {most:,}, or leave it out.",
            )


def _by_tokenizer(entries: Sequence[_Entry]) -> list[list[_Entry]]:
    """Models of equal tokenizers together: the text is in memory once, and read once for each of them."""
    groups: list[list[_Entry]] = []
    for entry in entries:
        spec = entry.snapshot.tokenizer
        same = next((group for group in groups if group[0].snapshot.tokenizer == spec), None)
        if same is None:
            groups.append([entry])
        else:
            same.append(entry)
    return groups


def _require_readable_again(
    text: Text, config: EvaluationConfig, groups: Sequence[Sequence[_Entry]]
) -> Generator[Event]:
    """Find out before the work that not all tokenizers can read the text.

    Raises:
        DataError: for a dataset, whose tokens are of one tokenizer, and for a character that one of them does not know.
        UsageError: for standard input.
    """
    if STDIN in text.data.input_files:
        raise UsageError("these models have different tokenizers: standard input can be read once; save it in a file")
    for group in groups:
        if text.data.dataset_dir:
            yield from read_split(text, config, [entry.snapshot for entry in group])
        elif group[0].snapshot.tokenizer.kind == "char" and config.unknown == "error":
            reading = read_split(text, config, [entry.snapshot for entry in group])
            # What is to be told is told when the text is scored.
            yield from (event for event in reading if not isinstance(event, Noted | Warned))


def _score(entry: _Entry, job: _Job) -> Generator[Event]:
    started_s = time.monotonic()
    block_size = entry.snapshot.config.block_size
    windows = SlidingWindows(job.stream, block_size, job.stride(block_size))
    with shortage_told(lambda: _shortage(entry.name, job.sequences_at_once(block_size), block_size)):
        # Verified, and told of what is broken, when it was found; a running training may have gone on since.
        snapshot, model = read_newest(
            entry.directory, lambda newest: (newest, newest.load(job.device.torch)), lambda _: None
        )
        totals = yield from _slide(entry.name, model, windows, job)
    if not math.isfinite(totals.nats):
        raise DivergedError(
            f"{snapshot.state.path}: the loss is {totals.nats}", hint="Evaluate another model, or train this one anew."
        )
    yield _told(snapshot, job, totals, time.monotonic() - started_s)


def _slide(name: str, model: GPT, windows: SlidingWindows, job: _Job) -> Generator[Event, None, Totals]:
    """Score the windows, telling progress."""
    started_s = told_s = time.monotonic()
    at_once = job.sequences_at_once(model.config.block_size)
    totals = Totals()
    yield Scoring(name, 0, windows.predicted, 0.0, 0.0)
    for totals in running_totals(model, windows, at_once, job.device, job.corpus.tokenizer.bytes_per_id):
        now_s = time.monotonic()
        if (now_s - told_s >= _TOLD_EVERY_S or totals.tokens == windows.predicted) and math.isfinite(totals.loss):
            told_s = now_s
            yield Scoring(name, totals.tokens, windows.predicted, totals.loss, now_s - started_s)
    return totals


def _told(snapshot: Snapshot, job: _Job, totals: Totals, elapsed_s: float) -> Scored:
    stream = job.stream
    first_id = int(stream.gather(np.zeros(1, dtype=np.int64), 1)[0, 0])
    return Scored(
        model_name=snapshot.name,
        path=str(snapshot.state.path),
        step=snapshot.state.step,
        parameters=snapshot.config.parameters,
        tokenizer=snapshot.tokenizer.kind,
        text=job.text.names,
        split=job.config.split,
        block_size=snapshot.config.block_size,
        stride=job.stride(snapshot.config.block_size),
        loss=totals.loss,
        perplexity=totals.perplexity,
        bits_per_byte=totals.bits_per_byte,
        accuracy=totals.accuracy,
        tokens=len(stream),
        text_bytes=totals.text_bytes + int(job.corpus.tokenizer.bytes_per_id[first_id]),
        predicted_tokens=totals.tokens,
        predicted_bytes=totals.text_bytes,
        device=job.device.label,
        elapsed_s=elapsed_s,
        tokens_per_s=totals.tokens / max(elapsed_s, 1e-9),
    )


def _shortage(name: str, sequences: int, block_size: int) -> MemoryShortageError:
    """What to say of a model that does not fit."""
    fewer = f"--batch-size {sequences // 2} takes less." if sequences > 1 else "Use a machine with more memory."
    return MemoryShortageError(
        f"out of memory: {name}, {several(sequences, 'sequence')} of {block_size:,} tokens at a time", hint=fewer
    )
