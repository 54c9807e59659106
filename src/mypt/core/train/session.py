"""One training run in memory: model, optimizer, batches, and where it stands.

A step depends on (weights, optimizer memory, seed, step, position) and on nothing else, so a
resumed run gives the same bits as an unbroken one.

Letters: B batch, T block_size.
"""

import math
import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from mypt import __version__
from mypt.core.checkpoint.snapshot import Contents, moments_of, parameter_names, weights_of
from mypt.core.data.batches import Batches, FixedWindows
from mypt.core.data.corpus import Corpus
from mypt.core.device import Device
from mypt.core.evaluate.loss import Score, score
from mypt.core.model.compiled import as_written
from mypt.core.model.gpt import GPT
from mypt.core.model.kernels.code import NO_KERNELS, open_kernels
from mypt.core.seeds import mix
from mypt.core.train.feed import Feed
from mypt.core.train.progress import Progress
from mypt.core.train.update import Update
from mypt.errors import DivergedError
from mypt.records.checkpoint import LossScaleState, TrainingState
from mypt.records.memory import evaluated_at_once
from mypt.records.run import RunConfig

ARITHMETIC = "4"
"""Raised with every version that computes a step in other bits."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What one update gave, as it is read from the device."""

    step: int
    first_sample: int
    samples: int
    loss: float
    gradient_norm: float
    loss_scale: float = 1.0
    """What the gradients were multiplied by: above 1 in fp16 alone."""

    @property
    def is_sound(self) -> bool:
        """Whether the run goes on from here: the update was applied, or only showed that fp16's scale was too large."""
        return math.isfinite(self.loss) and (math.isfinite(self.gradient_norm) or self.loss_scale > 1)


class _StoppedError(Exception):
    """An evaluation was left in the middle."""


class Session:
    """A run that can step, evaluate and say all that has to be saved."""

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        model: GPT,
        device: Device,
        progress: Progress,
        initialized_from: str | None = None,
        loss_scale: LossScaleState | None = None,
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.model = model.train()
        self.model.checkpoint_activations = config.training.checkpoint_activations
        self._update = Update(model, config.training, device, loss_scale)
        self.optimizer = self._update.optimizer
        self.device = device
        self.progress = progress
        self.initialized_from = initialized_from
        training, block_size = config.training, config.model.block_size
        masked = training.document_mask
        self.batches = Batches(corpus.train, block_size, training.seed, documents=masked)
        self._feed = Feed(self.batches.at, device)
        self._unread: list[tuple[int, int, Callable[[], list[float]]]] = []
        """Step, first sample, and what waits for the numbers that the step gives."""
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
    def val_windows(self) -> int:
        """Windows one evaluation reads; 0 where there is no validation split."""
        return 0 if self._val_windows is None else len(self._val_windows)

    @property
    def waited_s(self) -> float:
        """Seconds that all steps together waited for their batches."""
        return self._feed.waited_s

    def train_step(self) -> None:
        """Do one optimizer update. Where loss or gradient is no number, nothing is changed by it.

        Raises:
            DataError: when the text cannot be read any more; the step was not begun.
        """
        training, progress = self.config.training, self.progress
        batch = self._feed.take(progress.samples_seen, training.batch_size)
        # Dropout is a function of the step, so nothing of the generator needs to be stored.
        vitals = self._update(batch, progress.step, mix(training.seed, progress.step, 4))
        self._unread.append((progress.step + 1, progress.samples_seen, self.device.later(vitals)))
        progress.step += 1
        progress.samples_seen += training.batch_size

    def read(self, behind: int = 0) -> list[Vitals]:
        """Wait for the steps since the last reading; take note of each, and give them.

        Args:
            behind: so many of the newest are left for the next reading, so that a GPU never waits for us.
        """
        count = max(0, len(self._unread) - behind)
        unread, self._unread = self._unread[:count], self._unread[count:]
        read = [
            Vitals(step, first_sample, self.config.training.batch_size, *values())
            for step, first_sample, values in unread
        ]
        for vitals in read:
            seen = vitals.first_sample + vitals.samples
            self.progress.stepped(vitals.step, seen, vitals.loss, is_applied=vitals.is_sound)
        return read

    @property
    def sequences_at_once(self) -> int:
        """How many sequences are passed at a time: a batch, or a piece of one."""
        return self._update.sequences_at_once

    @property
    def steps_to_prepare(self) -> int:
        """How many first steps take longer than all others."""
        return self._update.steps_to_prepare

    def halve(self) -> None:
        """From now on take half as many sequences at once, or less; a step learns from as many as before."""
        self._update.halve()

    def evaluate(self, stop: Callable[[], bool] = lambda: False) -> Score | None:
        """Score the fixed validation windows; None when `stop` turned true on the way.

        Raises:
            DivergedError: when the loss is not finite.
        """
        assert self._val_windows is not None, "the caller asks only where there is a split"

        def between() -> None:
            if stop():
                raise _StoppedError

        try:
            with as_written() if self.device.compiled else nullcontext():
                model, windows = self._update.working_model, self._val_windows
                result = score(model, windows, self._evaluated_at_once, self.device, self._bytes_per_id, between)
        except _StoppedError:
            return None
        if not math.isfinite(result.loss):
            raise DivergedError(
                f"the validation loss is {result.loss} at step {self.progress.step}; nothing of it was saved",
                hint="Lower --learning-rate, and go on from the last checkpoint; or begin anew with --fresh.",
            )
        self.progress.evaluated(result)
        return result

    @property
    def _evaluated_at_once(self) -> int:
        """Windows of an evaluation at a time."""
        on_gpu = self.device.kind == "cuda"
        return evaluated_at_once(self.sequences_at_once, self.config.model.block_size, on_gpu=on_gpu)

    def contents(self, model_name: str) -> Contents:
        """All that a state is made of, after the newest step that was applied. The tensors are the live ones.

        Steps that were left out since are no part of it: who goes on meets them again.
        """
        return Contents(
            config=self.config.model,
            tokenizer=self.corpus.spec,
            training=self._state(model_name),
            weights=weights_of(self.model),
            moments=moments_of(self.optimizer.state, parameter_names(self.model)),
        )

    def close(self) -> None:
        """End the thread that prepares batches, and give a GPU's memory back."""
        self._feed.close()
        self._update.close()

    def _state(self, model_name: str) -> TrainingState:
        progress = self.progress
        # What was halved for want of memory stays so: the next bits depend on it.
        at_once = self.sequences_at_once if self.sequences_at_once < self.config.training.batch_size else None
        return TrainingState(
            model_name=model_name,
            step=progress.applied_step,
            samples_seen=progress.applied_samples,
            training=self.config.training.model_copy(update={"micro_batch_size": at_once}),
            data=self.config.data,
            data_fingerprint=self.corpus.fingerprint,
            initialized_from=self.initialized_from,
            loss=progress.loss,
            val_loss=progress.val.loss if progress.val else None,
            val_step=progress.val_step,
            bits_per_byte=progress.val.bits_per_byte if progress.val else None,
            best_val_loss=progress.best_val_loss,
            best_step=progress.best_step,
            evaluations_since_best=progress.evaluations_since_best,
            skipped_steps=tuple(step for step in progress.skipped_steps if step < progress.applied_step),
            loss_scale=None if self._update.scale is None else self._update.scale.state(),
            versions=self.versions(),
        )

    def versions(self) -> dict[str, str]:
        """What the bits depend on beside settings and text."""
        return {
            "mypt": __version__,
            "arithmetic": ARITHMETIC,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": self.device.label,
            "precision": self.device.precision,
            "compiled": "yes" if self.device.compiled else "no",
            "kernels": open_kernels().calls.library.digest if self.device.kernels else NO_KERNELS,
            # torch chooses its kernels by them.
            "instructions": torch.backends.cpu.get_cpu_capability() if self.device.kind == "cpu" else "",
        }
