"""One training run in memory: model, optimizer, batches, and where it stands.

A step depends on (weights, optimizer memory, seed, step, position) and on nothing else, so a
resumed run gives the same bits as an unbroken one.
"""

import math
import platform
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from mypt import __version__
from mypt.core.checkpoint.snapshot import Contents, moments_of, parameter_names, weights_of
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.batches import Batches, FixedWindows
from mypt.core.data.corpus import Corpus
from mypt.core.device import Device
from mypt.core.evaluate.loss import Score, score
from mypt.core.model.gpt import GPT
from mypt.core.seeds import mix
from mypt.core.train.feed import Feed
from mypt.core.train.optimizer import build_optimizer
from mypt.core.train.schedule import learning_rate
from mypt.errors import DivergedError, MemoryShortageError
from mypt.events import Saved
from mypt.records.checkpoint import TrainingState
from mypt.records.run import RunConfig
from mypt.units import human_count


@dataclass(slots=True)
class Progress:
    """The numbers that change while training."""

    step: int = 0
    samples_seen: int = 0
    loss: float | None = None
    val: Score | None = None
    val_step: int | None = None
    """The step `val` belongs to."""


class Session:
    """A run that can step, evaluate and save."""

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        model: GPT,
        device: Device,
        progress: Progress,
        initialized_from: str | None = None,
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.model = model.train()
        self.optimizer = build_optimizer(model, config.training)
        self.device = device
        self.progress = progress
        self.initialized_from = initialized_from
        training, block_size = config.training, config.model.block_size
        masked = training.document_mask
        self._batches = Batches(corpus.train, block_size, training.seed, documents=masked)
        self._feed = Feed(self._batches.at, device)
        windows = training.eval_iters * training.batch_size
        self._val_windows: FixedWindows | None = None
        if len(corpus.val):
            self._val_windows = FixedWindows(corpus.val, block_size, windows, training.seed, documents=masked)
            # Loaded now: a table that cannot be found must not end a run at its first evaluation.
            self._bytes_per_id = corpus.tokenizer.bytes_per_id

    @property
    def tokens_per_step(self) -> int:
        """Tokens one update learns from."""
        return self.config.training.batch_size * self.config.model.block_size

    @property
    def tokens_seen(self) -> int:
        """Tokens learned from so far."""
        return self.progress.samples_seen * self.config.model.block_size

    @property
    def windows_per_epoch(self) -> int:
        """Windows of one pass over the training text."""
        return self._batches.windows_per_epoch

    def coverage(self, samples: int) -> float:
        """The part of the training text that the first `samples` samples of the run read."""
        return self._batches.coverage(samples)

    @property
    def val_windows(self) -> int:
        """Windows one evaluation reads; 0 where there is no validation split."""
        return 0 if self._val_windows is None else len(self._val_windows)

    def train_step(self) -> torch.Tensor:
        """Do one optimizer update; give its loss and gradient norm, shape (2,), on the device."""
        training, progress = self.config.training, self.progress
        rate = learning_rate(progress.step, training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout is a function of the step, so nothing of the generator needs to be stored.
        torch.manual_seed(mix(training.seed, progress.step, 4))
        batch = self._feed.take(progress.samples_seen, training.batch_size)
        with self.device.autocast():
            loss = self.model.loss(*batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.grad_clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.samples_seen += training.batch_size
        return torch.stack([loss.detach(), norm])

    def close(self) -> None:
        """End the thread that prepares batches."""
        self._feed.close()

    def read_loss(self, vitals: torch.Tensor) -> float:
        """Wait for what `train_step` gave, and keep the loss.

        Raises:
            DivergedError: when loss or gradient is not finite. The weights are spoilt then, but no
                state is saved before its step's vitals were read.
        """
        loss, norm = vitals.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(f"the loss is {loss} and the gradient's norm {norm}")
        self.progress.loss = loss
        return loss

    def evaluate(self) -> Score:
        """Score the fixed validation windows.

        Raises:
            DivergedError: when the loss is not finite.
        """
        assert self._val_windows is not None, "the caller asks only where there is a split"
        batch_size = self.config.training.batch_size
        result = score(self.model, self._val_windows, batch_size, self.device, self._bytes_per_id)
        if not math.isfinite(result.loss):
            raise self._diverged(f"the validation loss is {result.loss}")
        self.progress.val, self.progress.val_step = result, self.progress.step
        return result

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} at step {self.progress.step}; nothing of it was saved",
            hint="Lower --learning-rate; the same command goes on from the last checkpoint.",
        )

    def state(self, model_name: str) -> TrainingState:
        """Everything beside tensors, as it is now."""
        progress = self.progress
        return TrainingState(
            model_name=model_name,
            step=progress.step,
            samples_seen=progress.samples_seen,
            training=self.config.training,
            data=self.config.data,
            data_fingerprint=self.corpus.fingerprint,
            initialized_from=self.initialized_from,
            loss=progress.loss,
            val_loss=progress.val.loss if progress.val else None,
            val_step=progress.val_step,
            bits_per_byte=progress.val.bits_per_byte if progress.val else None,
            versions={
                "mypt": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "device": self.device.label,
                "precision": self.device.precision,
            },
        )

    def save(self, directory: ModelDirectory) -> Saved:
        """Publish the current state, then retire old ones.

        Raises:
            CheckpointError: when it cannot be written.
        """
        started_s = time.monotonic()
        state = self.state(directory.name)
        moments = moments_of(self.optimizer, parameter_names(self.model))
        saved, size_bytes = directory.publish(
            Contents(self.config.model, self.corpus.spec, state, weights_of(self.model), moments)
        )
        directory.retire()
        return Saved(state.step, str(saved.path), size_bytes, time.monotonic() - started_s)


@contextmanager
def memory_shortage(config: RunConfig) -> Generator[None]:
    """Say in our words that something does not fit.

    Raises:
        MemoryShortageError: instead of torch's and Python's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        # torch.OutOfMemoryError is a RuntimeError; the CPU allocator raises a plain one.
        is_shortage = isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(problem)
        if not is_shortage:
            raise
        batch_size, size = config.training.batch_size, human_count(config.model.parameters)
        raise MemoryShortageError(
            f"out of memory: {size} parameters, steps of {batch_size} x {config.model.block_size} tokens",
            hint=f"Try --batch-size {max(1, batch_size // 2)}, a shorter --block-size or a smaller preset.",
        ) from None
