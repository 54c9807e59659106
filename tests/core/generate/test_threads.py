"""The number of threads follows what is fastest, and looking for it costs little."""

from collections.abc import Callable

import pytest

from mypt.core.generate.native import threads
from mypt.core.generate.native.threads import Threads


class Machine:
    """A clock that is moved by steps, which take what a number of threads takes there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes_s: Callable[[int], float]) -> None:
        self.now_s, self.takes_s = 0.0, takes_s
        monkeypatch.setattr(threads, "perf_counter", lambda: self.now_s)

    def run(self, chosen: Threads, steps: int) -> list[int]:
        """The numbers that were used."""
        used: list[int] = []
        for _ in range(steps):
            with chosen.step() as number:
                self.now_s += self.takes_s(number)
            used.append(number)
        return used


def idle(number: int) -> float:
    """Work that threads share, and what each wait costs."""
    return 0.001 / number + 0.00001


def busy(number: int) -> float:
    """Another program has taken a core: who waits for all threads, waits for it."""
    return 0.02 if number > 4 else 0.001 / number


def tiny(number: int) -> float:
    """Nothing to share."""
    return 0.0001 * number


@pytest.mark.parametrize(
    ("takes_s", "most", "best"),
    [(idle, 8, 8), (busy, 8, 4), (busy, 16, 4), (busy, 64, 4), (tiny, 8, 1), (busy, 6, 3), (tiny, 64, 1), (idle, 1, 1)],
)
def test_the_fastest_number_is_found_soon_and_kept(
    monkeypatch: pytest.MonkeyPatch, takes_s: Callable[[int], float], most: int, best: int
) -> None:
    used = Machine(monkeypatch, takes_s).run(Threads(most), 5000)
    assert used[0] == most
    assert used[60:120].count(best) >= 50
    assert used[1000:].count(best) > 0.9 * 4000


@pytest.mark.parametrize("takes_s", [idle, busy, tiny])
def test_looking_for_a_better_number_costs_little(
    monkeypatch: pytest.MonkeyPatch, takes_s: Callable[[int], float]
) -> None:
    machine, chosen = Machine(monkeypatch, takes_s), Threads(8)
    machine.run(chosen, 200)
    before_s = machine.now_s
    machine.run(chosen, 20_000)
    least_s = 20_000 * min(takes_s(number) for number in (1, 2, 4, 8))
    assert machine.now_s - before_s < 1.1 * least_s


def test_what_changes_on_the_machine_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, chosen = Machine(monkeypatch, idle), Threads(8)
    machine.run(chosen, 1000)
    for takes_s, best in ((busy, 4), (idle, 8), (tiny, 1)):
        machine.takes_s, before_s = takes_s, machine.now_s
        while machine.now_s < before_s + 3:
            machine.run(chosen, 1)
        assert machine.run(chosen, 500).count(best) > 450


def test_a_step_during_which_another_number_came_into_use_counts_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, chosen = Machine(monkeypatch, idle), Threads(4)
    for _ in range(300):
        with chosen.step() as mine:
            others = machine.run(chosen, 5)
            machine.now_s += 0 if set(others) != {mine} else idle(mine)  # as if it had taken no time
    assert machine.run(chosen, 100).count(4) > 80
