"""When to save."""

from mypt.records.run import TrainingConfig

_STALLS_APART = 100
"""Saves by time are so many times apart as the last one made training wait: under 1 % of the run."""


class Cadence:
    """When the next state is due: a pure function of steps, seconds and what the last save cost."""

    def __init__(self, training: TrainingConfig, now_s: float) -> None:
        self._training = training
        self._last_s = now_s
        self._stall_s = 0.0

    def due(self, step: int, now_s: float, *, is_best: bool) -> bool:
        """Whether to save after this step.

        Args:
            step: updates done.
            now_s: the clock.
            is_best: it was just evaluated, and better than all before.
        """
        training = self._training
        if is_best or (training.keep_every and step % training.keep_every == 0):
            return True
        if training.save_interval:
            return step % training.save_interval == 0
        return now_s - self._last_s >= max(training.save_interval_s, _STALLS_APART * self._stall_s)

    def saved(self, now_s: float, stall_s: float) -> None:
        """Count from now on; training stood still for `stall_s`."""
        self._last_s, self._stall_s = now_s, stall_s
