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
_MORE, _FEWER = 0.95, 1.02
"""Of the time a step takes, what more threads and fewer threads may take at most. Fewer that are about as fast are
better: they leave a core to others, and where two numbers wait for the same lost core, still fewer may not."""
_SHARE = 0.04
"""Of all time, for trying a number again that was slower."""


class Threads:
    """All threads, or half of them, and so on down to one; the neighbours of what is in use are tried now and then."""

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

    @property
    def number(self) -> int:
        """Of threads that were the fastest so far."""
        return self._numbers[self._used]

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
            allowed = _FEWER if self._next > self._used else _MORE
            if median(self._seconds[self._next]) <= allowed * median(self._seconds[self._used]):
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
                # With the first step, which does not count.
                if not known or (1 + _TRIED) * median(known) < _SHARE * self._waited_s[place]:
                    return place
        return None


_KNOWN: WeakKeyDictionary[object, dict[tuple[int, int], Threads]] = WeakKeyDictionary()


def threads_for(model: object, rows: int, most: int) -> Threads:
    """What was found out for steps of a model.

    Args:
        model: whose steps they are.
        rows: of each step; as many up to twice as many take about the same time.
        most: threads there are.
    """
    known, kind = _KNOWN.setdefault(model, {}), (rows.bit_length(), most)
    return known.get(kind) or known.setdefault(kind, Threads(most))
