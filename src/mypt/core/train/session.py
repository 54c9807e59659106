"""One training run in memory: model, optimizer, batches, and where it stands.

A step depends on (weights, optimizer memory, seed, step, position) and on nothing else, so a
resumed run gives the same bits as an unbroken one.
"""

import math
import platform
import time
from dataclasses import dataclass

import torch

from mypt import __version__
from mypt.core.checkpoint.snapshot import write_snapshot
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.batches import Batches, FixedWindows
from mypt.core.data.corpus import Corpus
from mypt.core.device import Device
from mypt.core.evaluate.loss import Score, score, to_device
from mypt.core.model.gpt import GPT
from mypt.core.seeds import mix
from mypt.core.train.schedule import learning_rate
from mypt.errors import DivergedError, MemoryShortageError
from mypt.events import Saved
from mypt.records.checkpoint import TrainingState
from mypt.records.run import RunConfig


@dataclass(slots=True)
class Progress:
    """The numbers that change while training."""

    step: int = 0
    samples_seen: int = 0
    tokens_seen: int = 0
    loss: float | None = None
    val: Score | None = None


class Session:
    """A run that can step, evaluate and save."""

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        model: GPT,
        optimizer: torch.optim.Optimizer,
        device: Device,
        progress: Progress,
        initialized_from: str | None,
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.model = model
        self.optimizer = optimizer
        self.device = device
        self.progress = progress
        self.initialized_from = initialized_from
        training = config.training
        self._batches = Batches(corpus.train, config.model.block_size, training.seed)
        self._val_windows = (
            FixedWindows(corpus.val, config.model.block_size, training.eval_iters * training.batch_size, training.seed)
            if len(corpus.val)
            else None
        )

    @property
    def tokens_per_step(self) -> int:
        """Tokens one update learns from."""
        return self.config.training.batch_size * self.config.model.block_size

    @property
    def evaluates(self) -> bool:
        """Whether there is a validation split."""
        return self._val_windows is not None

    def train_step(self) -> torch.Tensor:
        """Do one optimizer update; give its loss as a scalar on the device.

        Raises:
            MemoryShortageError: when it does not fit.
        """
        training, progress = self.config.training, self.progress
        rate = learning_rate(progress.step, training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout is a function of the step, so nothing of the generator needs to be stored.
        torch.manual_seed(mix(training.seed, progress.step, 4))
        inputs_BT, targets_BT = self._batches.at(progress.samples_seen, training.batch_size)
        try:
            with self.device.autocast():
                loss = self.model.loss(to_device(inputs_BT, self.device), to_device(targets_BT, self.device))
            loss.backward()
            if training.grad_clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.grad_clip)
            self.optimizer.step()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
            if _is_memory_shortage(problem):
                raise _memory_shortage(self.config) from None
            raise
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.samples_seen += training.batch_size
        progress.tokens_seen += self.tokens_per_step
        return loss.detach()

    def read_loss(self, loss: torch.Tensor) -> float:
        """Wait for a step's loss and keep it.

        Raises:
            DivergedError: when it is not finite; the saved states are from before.
        """
        value = loss.item()
        if not math.isfinite(value):
            message = f"the loss became {value} at step {self.progress.step}; nothing of it was saved"
            raise DivergedError(
                message, hint="Lower --learning-rate; the same command goes on from the last checkpoint."
            )
        self.progress.loss = value
        return value

    def evaluate(self) -> Score:
        """Score the fixed validation windows."""
        assert self._val_windows is not None, "the caller asks only where there is a split"
        result = score(
            self.model,
            self._val_windows,
            self.config.training.batch_size,
            self.device,
            self.corpus.tokenizer.bytes_per_id,
        )
        self.progress.val = result
        return result

    @property
    def val_windows(self) -> int:
        """Windows one evaluation reads."""
        return 0 if self._val_windows is None else len(self._val_windows)

    def state(self, model_name: str) -> TrainingState:
        """Everything beside tensors, as it is now."""
        progress = self.progress
        return TrainingState(
            model_name=model_name,
            step=progress.step,
            samples_seen=progress.samples_seen,
            tokens_seen=progress.tokens_seen,
            training=self.config.training,
            data=self.config.data,
            data_fingerprint=self.corpus.fingerprint,
            initialized_from=self.initialized_from,
            loss=progress.loss,
            val_loss=progress.val.loss if progress.val else None,
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
        saved, size_bytes = directory.publish(
            state.step,
            lambda folder: write_snapshot(
                folder, self.config.model, self.corpus.tokenizer.spec, state, self.model, self.optimizer
            ),
        )
        directory.retire()
        return Saved(state.step, str(saved.path), size_bytes, time.monotonic() - started_s)


def _is_memory_shortage(problem: BaseException) -> bool:
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(problem)


def _memory_shortage(config: RunConfig) -> MemoryShortageError:
    batch_size = config.training.batch_size
    return MemoryShortageError(
        f"out of memory in a step of {batch_size} x {config.model.block_size} tokens",
        hint=f"Try --batch-size {max(1, batch_size // 2)}, a shorter --block-size or a smaller preset.",
    )
