"""Where the seconds of a run go, and from that its speed and its remaining time.

The clock always runs for one part; `spending` changes which. So the parts add up to the whole.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal, get_args

Part = Literal["steps", "batches", "evaluation", "saving", "logging", "other"]
"""`batches`: waiting for them. `logging`: writing to the log, and what whoever is told of an event makes of it."""

PARTS: tuple[Part, ...] = get_args(Part)


class Meter:
    """Counts steps, and the seconds of each part of a run.

    Args:
        tokens_per_step: tokens one optimizer update consumes.
        clock_s: gives seconds; only differences matter.
    """

    def __init__(self, tokens_per_step: int, clock_s: Callable[[], float]) -> None:
        self._tokens_per_step = tokens_per_step
        self._clock_s = clock_s
        self._started_s = self._since_s = clock_s()
        self._part: Part = "other"
        self._spent_s = dict.fromkeys(PARTS, 0.0)
        self._steps = 0
        self._lap = (0, 0.0)

    @contextmanager
    def spending(self, part: Part) -> Generator[None]:
        """Count the seconds inside for a part; what is inside may have parts of its own."""
        outer, _ = self._part, self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(outer)

    def step(self, waited_s: float) -> None:
        """Count one finished update; for `waited_s` of the seconds spent on it its batch was not there."""
        self._steps += 1
        # Two clocks were read: no part may become negative by their last digits.
        waited_s = min(waited_s, self._spent_s["steps"])
        self._spent_s["steps"] -= waited_s
        self._spent_s["batches"] += waited_s

    def lap_tokens_per_s(self, under_way: int = 0) -> float:
        """Speed since the last call of this method; of the steps counted, so many are not done yet."""
        lap_steps, lap_s = self._lap
        done = self._steps - under_way
        self._lap = (done, self._stepping_s)
        return self._rate(done - lap_steps, self._stepping_s - lap_s)

    @property
    def tokens_per_s(self) -> float:
        """True tokens over true seconds, waiting for batches included and all other parts left out."""
        return self._rate(self._steps, self._stepping_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, of all parts."""
        return self._clock_s() - self._started_s

    def spent_s(self) -> dict[Part, float]:
        """Seconds of each part so far."""
        self._turn_to(self._part)
        return dict(self._spent_s)

    def eta_s(self, remaining_steps: int, under_way: int = 0) -> float:
        """Seconds left at the pace so far, all parts included; of the steps counted, so many are not done yet."""
        done = self._steps - under_way
        return self.elapsed_s / done * remaining_steps if done > 0 else 0.0

    @property
    def _stepping_s(self) -> float:
        return self._spent_s["steps"] + self._spent_s["batches"]

    def _turn_to(self, part: Part) -> None:
        now_s = self._clock_s()
        self._spent_s[self._part] += now_s - self._since_s
        self._part, self._since_s = part, now_s

    def _rate(self, steps: int, seconds: float) -> float:
        return steps * self._tokens_per_step / seconds if seconds > 0 else 0.0
