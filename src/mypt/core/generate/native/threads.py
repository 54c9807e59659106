"""How many threads do a step: as many as are fastest on this machine, with whatever else it has to do just now.

Threads wait for each other some ten times a layer. Where another program has taken a core, each wait lasts until the
system gives it back; and a little model has too little work between two waits for many threads. The bits are the same
for any number, so the number can be found by trying.
"""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from threading import Lock
from time import perf_counter
from weakref import WeakKeyDictionary

_TRIED, _REMEMBERED = 3, 9
"""Steps whose median counts: of a number that is tried, and of the one in use."""
_BETTER = 0.95
"""Of the time a step takes: a smaller gain is none."""
_SHARE = 0.04
"""Of all time, for trying a number again that was slower."""


class Threads:
    """All threads, or half of them, and so on down to one; the neighbours of what is in use are tried now and then.

    For steps that take about the same time.
    """

    def __init__(self, most: int) -> None:
        """Begin with all there are."""
        self._numbers = [most >> halved for halved in range(most.bit_length())]
        self._seconds = [deque[float](maxlen=_REMEMBERED) for _ in self._numbers]
        self._waited_s = [0.0 for _ in self._numbers]
        """Since each was tried."""
        self._used = self._next = 0
        """Places among the numbers: where the two differ, the next one is tried."""
        self._is_first = True
        self._lock = Lock()

    @contextmanager
    def step(self) -> Generator[int]:
        """Do a step with the number that is given."""
        place, began_s = self._next, perf_counter()
        yield self._numbers[place]
        with self._lock:
            if place == self._next:  # else another one who generates has gone on meanwhile
                self._took(perf_counter() - began_s)

    def _took(self, seconds: float) -> None:
        self._waited_s = [waited_s + seconds for waited_s in self._waited_s]
        if self._is_first:  # in which threads wake up, or go to sleep
            self._is_first = False
            return
        self._seconds[self._next].append(seconds)
        if len(self._seconds[self._next]) < _TRIED:
            return
        if self._next != self._used:
            self._waited_s[self._next] = 0.0
            if median(self._seconds[self._next]) < _BETTER * median(self._seconds[self._used]):
                self._waited_s[self._used] = 0.0
                self._used = self._next
            self._next, self._is_first = self._used, True
        elif (place := self._due()) is not None:
            self._seconds[place].clear()
            self._next, self._is_first = place, True

    def _due(self) -> int | None:
        """A neighbour that was not tried yet, or so long ago that another try takes little of the time since."""
        for place in (self._used + 1, self._used - 1):
            if 0 <= place < len(self._numbers):
                known = self._seconds[place]
                if not known or (_TRIED + 1) * median(known) < _SHARE * self._waited_s[place]:
                    return place
        return None


_KNOWN: WeakKeyDictionary[object, dict[tuple[int, int], Threads]] = WeakKeyDictionary()


def threads_for(work: object, rows: int, most: int) -> Threads:
    """What was found out for some work, on so many rows up to twice as many, where there are so many threads."""
    return _KNOWN.setdefault(work, {}).setdefault((rows.bit_length(), most), Threads(most))
