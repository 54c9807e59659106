"""The training verb: text and config in, events and checkpoints out.

    take the lock -> read text -> fresh, resumed or adopted weights -> steps, evaluations, saves

Closing the iterator, or `stop` turning true, saves the current step and ends the run.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import torch

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.corpus import Corpus, read_corpus
from mypt.core.device import choose_device, deterministic
from mypt.core.tokens.find import NAMES, find_tokenizer
from mypt.core.train.meter import Meter
from mypt.core.train.schedule import learning_rate
from mypt.core.train.session import Session, memory_shortage
from mypt.core.train.start import Origin, begin, find_origin
from mypt.durable import make_directory
from mypt.errors import CheckpointError, UsageError
from mypt.events import Evaluated, Event, Finished, RunPlanned, Saved, StepDone, Warned
from mypt.records.budget import training_memory
from mypt.records.run import RunConfig
from mypt.records.tokenizer import TokenizerSpec

VOCABULARY_MULTIPLE = 64
"""Byte-pair vocabularies are padded to a multiple of this, for faster matrix products: GPT-2's to 50,304."""


def train(
    config: RunConfig,
    directory: ModelDirectory,
    *,
    keep_vocab_size: bool = False,
    fresh: bool = False,
    init_from: ModelDirectory | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event]:
    """Train a model, or go on training it.

    Args:
        config: the resolved run.
        directory: where the model lives; an existing one is resumed.
        keep_vocab_size: take config.model.vocab_size as it is, not the tokenizer's size.
        fresh: set an existing model aside first.
        init_from: start a new model with this one's weights.
        stop: asked after every step.

    Raises:
        MyptError: one of its kinds, for everything a user can mend.
    """
    with deterministic(), memory_shortage(config), directory.lock():
        device = choose_device(config.training.device, config.training.precision)
        warnings: list[str] = []
        origin = find_origin(None if fresh else directory, init_from, warnings.append)
        yield from map(Warned, warnings)
        corpus = yield from _read_text(config, origin)
        config = _fitted(config, corpus, origin, keep_vocab_size=keep_vocab_size)
        session = begin(config, corpus, origin, device)
        # Only now, when nothing of the new run can fail any more for want of text or memory.
        aside = directory.set_aside() if fresh else None
        if aside is not None:
            yield Warned(f"the old model was set aside as {aside}")
        with closing(session):
            yield _plan(session, directory)
            yield from _Loop(session, directory, stop).run()


def _read_text(config: RunConfig, origin: Origin) -> Generator[Event, None, Corpus]:
    """Read the text with the tokenizer of the model that is gone on with, if there is one.

    Raises:
        UsageError: when another tokenization than the model's is asked for.
        DataError: when the text is unfit or too short.
    """
    source = origin.tokenizer_source
    if source is not None and not config.data.dataset_dir:
        _require_same_tokenizer(config.data.tokenization, source.tokenizer)
    corpus = yield from read_corpus(config.data, source.tokenizer if source else None)
    corpus.require_blocks(config.model.block_size)
    if config.training.document_mask:
        corpus.require_documents()
    if origin.own is not None and origin.own.training.data_fingerprint not in {"", corpus.fingerprint}:
        yield Warned("the training text is not the one this model was trained on so far")
    return corpus


def _require_same_tokenizer(wanted: str, own: TokenizerSpec) -> None:
    """Refuse a tokenization other than the model's; a model's own word for it is the kind alone."""
    if wanted == own.kind:
        return
    if wanted in NAMES or find_tokenizer(wanted) != own:
        raise UsageError(
            f"--tokenization {wanted}: the model's tokenizer is another one ({own.kind}, {own.vocab_size:,} ids)",
            hint="Leave --tokenization out, or train a new model.",
        )


def _fitted(config: RunConfig, corpus: Corpus, origin: Origin, *, keep_vocab_size: bool) -> RunConfig:
    """Write down what the tokenizer decides: its kind, and the vocabulary unless an explicit one pads it.

    Raises:
        UsageError: for an explicit vocabulary smaller than the tokenizer's.
    """
    spec = corpus.spec
    if keep_vocab_size:
        size = config.model.vocab_size
    elif origin.tokenizer_source is not None:
        size = origin.tokenizer_source.config.vocab_size
    else:
        multiple = VOCABULARY_MULTIPLE if spec.kind in {"gpt2", "bpe"} else 1
        size = -(-spec.vocab_size // multiple) * multiple
    if size < spec.vocab_size:
        needed = spec.vocab_size
        raise UsageError(f"model.vocab_size = {size}: the tokenizer has {needed} ids (allowed: ≥ {needed})")
    model = config.model.model_copy(update={"vocab_size": size})
    data = config.data.model_copy(update={"tokenization": spec.kind})
    return config.model_copy(update={"model": model, "data": data})


def _plan(session: Session, directory: ModelDirectory) -> RunPlanned:
    config, corpus, training = session.config, session.corpus, session.config.training
    samples = training.max_iters * training.batch_size
    return RunPlanned(
        model_name=directory.name,
        path=str(directory.path),
        parameters=config.model.parameters,
        train_tokens=len(corpus.train),
        val_tokens=len(corpus.val),
        start_step=session.progress.step,
        max_iters=training.max_iters,
        tokens_per_step=session.tokens_per_step,
        epochs=samples / session.windows_per_epoch,
        coverage=session.coverage(samples),
        memory_bytes=training_memory(config.model, training.batch_size, session.device.precision).peak,
        device=session.device.label,
        precision=session.device.precision,
        tokenizer=corpus.spec.kind,
        vocab_size=config.model.vocab_size,
    )


class _Loop:
    """Steps until the end, a stop or a close, with evaluations and saves at their intervals."""

    def __init__(self, session: Session, directory: ModelDirectory, stop: Callable[[], bool]) -> None:
        self._session = session
        self._directory = directory
        self._stop = stop
        self._training = session.config.training
        self._meter = Meter(session.tokens_per_step, time.monotonic)
        self._saved_step = session.progress.step
        self._unread: torch.Tensor | None = None
        """What the newest step gave while it is still only on the device."""

    def run(self) -> Generator[Event, None, None]:
        """Train to the end."""
        progress = self._session.progress
        was_complete = progress.step >= self._training.max_iters
        make_directory(self._directory.path)
        try:
            # A run that was closed between a step and its evaluation owes this one.
            yield from self._evaluate_if_due()
            while progress.step < self._training.max_iters:
                yield from self._step()
                if self._stop():
                    yield from self._save()
                    yield self._finished("stopped")
                    return
        except GeneratorExit:
            # Closed from outside: nobody listens any more, but nothing may be lost.
            for _ in self._save():
                pass
            raise
        yield self._finished("already complete" if was_complete else "completed")

    def _step(self) -> Iterator[Event]:
        session, step, training = self._session, self._session.progress.step + 1, self._training
        last = step == training.max_iters
        self._unread = session.train_step()
        if step % training.log_interval == 0 or step == 1 or last:
            # The device works on while we go ahead: the clock is read when its work is known to be done.
            loss = self._read_loss()
            self._meter.step()
            yield self._logged(self._step_done(loss))
        else:
            self._meter.step()
        yield from self._evaluate_if_due()
        if step % training.checkpoint_interval == 0 or last:
            self._settle()
            yield from self._save()
            self._meter.resume()

    def _evaluate_if_due(self) -> Iterator[Event]:
        session, progress = self._session, self._session.progress
        is_due = progress.step % self._training.eval_interval == 0 or progress.step == self._training.max_iters
        if not (session.val_windows and progress.step and is_due) or progress.val_step == progress.step:
            return
        self._settle()
        started_s = time.monotonic()
        result = session.evaluate()
        elapsed_s = time.monotonic() - started_s
        yield self._logged(Evaluated(progress.step, result.loss, result.bits_per_byte, session.val_windows, elapsed_s))
        self._meter.resume()

    def _step_done(self, loss: float) -> StepDone:
        step = self._session.progress.step
        return StepDone(
            step=step,
            loss=loss,
            learning_rate=learning_rate(step - 1, self._training),
            tokens_per_s=self._meter.lap_tokens_per_s(),
            tokens_seen=self._session.tokens_seen,
            elapsed_s=self._meter.elapsed_s,
            eta_s=self._meter.eta_s(self._training.max_iters - step),
        )

    def _read_loss(self) -> float:
        loss = self._session.progress.loss if self._unread is None else self._session.read_loss(self._unread)
        self._unread = None
        assert loss is not None, "asked for only after a step"
        return loss

    def _settle(self) -> None:
        """Count the seconds of steps that are still running on the device as theirs."""
        if self._unread is not None:
            self._session.device.synchronize()
            self._meter.settle()

    def _save(self) -> Iterator[Saved]:
        if self._saved_step != self._session.progress.step:
            self._read_loss()  # what is no number any more must not be saved
            saved = self._session.save(self._directory)
            self._saved_step = saved.step
            yield saved

    def _logged(self, event: Event) -> Event:
        path = self._directory.metrics_path
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(event.as_json() + "\n")
        except OSError as problem:
            raise CheckpointError(
                f"{path}: cannot write it ({problem.strerror or problem})", hint="The saved states are intact."
            ) from None
        return event

    def _finished(self, reason: str) -> Finished:
        progress = self._session.progress
        return Finished(
            step=progress.step,
            loss=progress.loss,
            val_loss=progress.val.loss if progress.val else None,
            bits_per_byte=progress.val.bits_per_byte if progress.val else None,
            tokens_per_s=self._meter.tokens_per_s,
            elapsed_s=self._meter.elapsed_s,
            reason=reason,
            path=str(self._directory.path),
        )
