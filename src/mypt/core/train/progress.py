"""Where a run stands: the numbers that change while training. No torch."""

from dataclasses import dataclass, field
from typing import Self

from mypt.core.evaluate.score import Score
from mypt.records.checkpoint import TrainingState

_PARTED_EVALUATIONS = 3


@dataclass(slots=True)
class Progress:
    """Step, position, losses, the best evaluation, and what was left out."""

    step: int = 0
    samples_seen: int = 0
    applied_step: int = 0
    """The newest step that was not left out, as far as steps were read: the weights are those after it."""
    applied_samples: int = 0
    loss: float | None = None
    """Of that step."""
    val: Score | None = None
    val_step: int | None = None
    """The step whose weights `val` belongs to; so it is with the best."""
    best_val_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    skipped_steps: list[int] = field(default_factory=list)
    _loss_sum: float = 0.0
    _losses: int = 0
    """Training losses since the last evaluation."""
    _train_loss_at_best: float | None = None

    @classmethod
    def of(cls, saved: TrainingState) -> Self:
        """Go on where a state was saved."""
        # States from before the best was written down know their last evaluation at least.
        best, best_step = saved.best_val_loss, saved.best_step
        if best is None:
            best, best_step = saved.val_loss, saved.val_step
        return cls(
            step=saved.step,
            samples_seen=saved.samples_seen,
            applied_step=saved.step,
            applied_samples=saved.samples_seen,
            loss=saved.loss,
            val=None if saved.val_loss is None else Score(saved.val_loss, saved.bits_per_byte or 0.0),
            val_step=saved.val_step,
            best_val_loss=best,
            best_step=best_step,
            evaluations_since_best=saved.evaluations_since_best,
            skipped_steps=list(saved.skipped_steps),
        )

    @property
    def is_best(self) -> bool:
        """Whether the weights as they are were evaluated and are the best so far."""
        return self.best_step == self.val_step == self.applied_step

    def stepped(self, step: int, samples_seen: int, loss: float, *, is_applied: bool) -> None:
        """Take note of a step's loss, or that it was left out; `samples_seen` with it."""
        if is_applied:
            self.applied_step, self.applied_samples, self.loss = step, samples_seen, loss
            self._loss_sum += loss
            self._losses += 1
        else:
            self.skipped_steps.append(step)

    def evaluated(self, score: Score) -> None:
        """Take note of an evaluation of the weights as they are."""
        self.val, self.val_step = score, self.applied_step
        if self.best_val_loss is None or score.loss < self.best_val_loss:
            self.best_val_loss, self.best_step = score.loss, self.applied_step
            self.evaluations_since_best = 0
        else:
            self.evaluations_since_best += 1

    def has_parted(self) -> bool:
        """Ask once per evaluation: is the validation loss past its best while the training loss still falls?"""
        mean = self._loss_sum / self._losses if self._losses else None
        self._loss_sum, self._losses = 0.0, 0
        if self.is_best or self._train_loss_at_best is None or mean is None:
            self._train_loss_at_best = mean
            return False
        return self.evaluations_since_best >= _PARTED_EVALUATIONS and mean < self._train_loss_at_best
