"""The training verb: text and config in, events and checkpoints out.

    take the lock -> read text -> fresh, resumed or adopted weights -> steps, evaluations, saves

Closing the iterator, or `stop` turning true, saves the current step and ends the run.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.corpus import Corpus
from mypt.core.device import Device, deterministic
from mypt.core.train.compiling import choose_compiled
from mypt.core.train.length import with_duration, with_tokens
from mypt.core.train.loop import Loop
from mypt.core.train.memory import chosen_sequences, clear_shortage, copy_fits, fitting_sequences, step_memory
from mypt.core.train.metrics import MetricsLog
from mypt.core.train.session import Session
from mypt.core.train.start import (
    Origin,
    another_optimizer,
    begin,
    find_origin,
    is_to_compile,
    other_surroundings,
    read_text,
    run_device,
)
from mypt.durable import make_directory
from mypt.errors import CheckpointError, UsageError
from mypt.events import Event, RunPlanned, Warned
from mypt.records.length import Length
from mypt.records.run import RunConfig

VOCABULARY_MULTIPLE = 64
"""Byte-pair vocabularies are padded to a multiple of this, for faster matrix products: GPT-2's to 50,304."""


def train(
    config: RunConfig,
    directory: ModelDirectory,
    *,
    keep_vocab_size: bool = False,
    fresh: bool = False,
    init_from: ModelDirectory | None = None,
    length: Length | None = None,
    fit_micro_batch: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event]:
    """Train a model, or go on training it.

    Args:
        config: the resolved run.
        directory: where the model lives; an existing one is resumed.
        keep_vocab_size: take config.model.vocab_size as it is, not the tokenizer's size.
        fresh: set an existing model aside first.
        init_from: start a new model with this one's weights.
        length: how long to train, if not config.training.max_iters steps.
        fit_micro_batch: take as many sequences at once as suit the machine, whatever config.training.micro_batch_size
            says; a run that goes on with its batch keeps the number it began with, since the bits depend on it.
        stop: asked after every step, and between the batches of an evaluation.

    Raises:
        MyptError: one of its kinds, for everything a user can mend.
    """
    started_s = time.monotonic()
    with deterministic(), directory.lock():
        warnings: list[str] = []
        origin = find_origin(None if fresh else directory, init_from, warnings.append)
        yield from map(Warned, warnings)
        device = yield from run_device(config, origin.begun)
        with clear_shortage(config, device):
            corpus = yield from read_text(config, origin)
            config = _with_vocabulary(config, corpus, origin, keep_vocab_size=keep_vocab_size)
            fitted = device.with_compiled_code() if is_to_compile(config, origin.begun) else device
            if fit_micro_batch:
                config = _with_fitting_pieces(config, origin, fitted)
            config = yield from _within_memory(config, fitted)
            config = with_tokens(config, length, origin)
            duration_s = length.duration_s if length else None
            device = yield from choose_compiled(config, device, corpus, origin, duration_s)
            config = yield from with_duration(config, duration_s, corpus, origin, device, started_s)
            session = begin(config, corpus, origin, device)
        # Only now, when nothing of the new run can fail any more for want of text or memory.
        aside = directory.set_aside() if fresh else None
        if aside is not None:
            yield Warned(f"the old model was set aside as {aside}")
        if origin.begun is not None:
            yield from other_surroundings(origin.begun.training.versions, session.versions())
            yield from another_optimizer(origin.begun.training.training, config.training)
        with closing(session), closing(_open_log(directory)) as log:
            beside = copy_fits(config, device, session.sequences_at_once)
            yield _plan(session, directory, beside=beside)
            yield from Loop(session, directory, log, stop, beside=beside).run()


def _with_vocabulary(config: RunConfig, corpus: Corpus, origin: Origin, *, keep_vocab_size: bool) -> RunConfig:
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


def _with_fitting_pieces(config: RunConfig, origin: Origin, device: Device) -> RunConfig:
    """Choose the size of the micro-batch, once for all steps of a run.

    Raises:
        MemoryShortageError: when not even one sequence fits.
    """
    saved = origin.own.training.training if origin.own else None
    if saved is not None and saved.batch_size == config.training.batch_size:
        sequences = saved.sequences_at_once
    else:
        sequences = chosen_sequences(config, device)
    training = config.training.model_copy(update={"micro_batch_size": sequences})
    return config.model_copy(update={"training": training})


def _within_memory(config: RunConfig, device: Device) -> Generator[Event, None, RunConfig]:
    """Take as many sequences at once as the memory holds, by the estimate: a full machine kills without a word.

    Raises:
        MemoryShortageError: when the model alone is more than the machine has.
    """
    sequences = fitting_sequences(config, device)
    if sequences == config.training.sequences_at_once:
        return config
    yield Warned(
        f"{config.training.sequences_at_once} sequences at once would not fit into the memory: {sequences} are taken, "
        f"{config.training.batch_size} per step as before"
    )
    training = config.training.model_copy(update={"micro_batch_size": sequences})
    return config.model_copy(update={"training": training})


def _open_log(directory: ModelDirectory) -> MetricsLog:
    try:
        make_directory(directory.path)
        return MetricsLog(directory.metrics_path)
    except OSError as problem:
        raise CheckpointError(
            f"{problem.filename or directory.path}: cannot write here ({problem.strerror or problem})",
            hint="Choose another place with --checkpoint-dir.",
        ) from None


def _plan(session: Session, directory: ModelDirectory, *, beside: bool) -> RunPlanned:
    config, corpus, training = session.config, session.corpus, session.config.training
    samples = training.max_iters * training.batch_size
    device = session.device
    memory = step_memory(config, device, session.sequences_at_once)
    return RunPlanned(
        model_name=directory.name,
        path=str(directory.path),
        parameters=config.model.parameters,
        train_tokens=len(corpus.train),
        val_tokens=len(corpus.val),
        start_step=session.progress.step,
        max_iters=training.max_iters,
        tokens_per_step=session.tokens_per_step,
        batch_size=training.batch_size,
        micro_batch_size=session.sequences_at_once,
        micro_steps=-(-training.batch_size // session.sequences_at_once),
        epochs=samples / session.batches.windows_per_epoch,
        coverage=session.batches.coverage(samples),
        memory_bytes=memory.peak - (0 if beside else memory.snapshot),
        device=device.label,
        precision=device.precision,
        compiled=device.compiled,
        kernels=device.kernels,
        tokenizer=corpus.spec.kind,
        vocab_size=config.model.vocab_size,
    )
