"""Speed and remaining time: true tokens over true seconds, evaluations and saves left out."""

from collections.abc import Callable


class Meter:
    """Counts tokens and the seconds spent on steps alone.

    Args:
        tokens_per_step: tokens one optimizer update consumes.
        clock_s: gives seconds; only differences matter.
    """

    def __init__(self, tokens_per_step: int, clock_s: Callable[[], float]) -> None:
        self._tokens_per_step = tokens_per_step
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._resumed_s = self._started_s
        self._steps = 0
        self._stepping_s = 0.0
        self._lap = (0, 0.0)

    def step(self) -> None:
        """Count one finished update."""
        now_s = self._clock_s()
        self._steps += 1
        self._stepping_s += now_s - self._resumed_s
        self._resumed_s = now_s

    def settle(self) -> None:
        """Add the seconds until now to the steps already counted: a device was still at work on them."""
        now_s = self._clock_s()
        self._stepping_s += now_s - self._resumed_s
        self._resumed_s = now_s

    def resume(self) -> None:
        """Leave out the seconds since the last update: they went to evaluating or saving."""
        self._resumed_s = self._clock_s()

    def lap_tokens_per_s(self) -> float:
        """Speed since the last call of this method."""
        lap_steps, lap_s = self._lap
        self._lap = (self._steps, self._stepping_s)
        return self._rate(self._steps - lap_steps, self._stepping_s - lap_s)

    @property
    def tokens_per_s(self) -> float:
        """Speed over all updates of this process."""
        return self._rate(self._steps, self._stepping_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, evaluations and saves included."""
        return self._clock_s() - self._started_s

    def eta_s(self, remaining_steps: int) -> float:
        """Seconds left at the pace so far, evaluations and saves included."""
        return self.elapsed_s / self._steps * remaining_steps if self._steps else 0.0

    def _rate(self, steps: int, seconds: float) -> float:
        return steps * self._tokens_per_step / seconds if seconds > 0 else 0.0
