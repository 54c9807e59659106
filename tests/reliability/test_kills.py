"""kill -9 at any moment, again and again: the same command ends with the bits of a run that was never broken.

Every life of a command is killed after a random time, and looked at before the next one begins.
`MYPT_CHAOS=1` kills a thousand times instead of seventy, `MYPT_CHAOS_SEED` repeats the moments.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forking import Forks
from lives import Life, Run, require_same_end
from support import tale

CHAOS = os.environ.get("MYPT_CHAOS") == "1"
KILLS, INSIDE = (600, 100) if CHAOS else (30, 6)
KILLS_OF_A_VARIANT = 100 if CHAOS else 8
STEPS = 300 if CHAOS else 150
LIFE_IN_STARTS = 4  # the longest one takes so many times as long as a start takes: most die while they train and save

TINY = ("--n-layer", "2", "--n-head", "2", "--n-embd", "32", "--block-size", "32", "--batch-size", "4")
EVALUATED = ("--dropout", "0.1", "--eval-interval", "25", "--eval-iters", "2")
TEXT = ("--input-file", "tale.txt", "--tokenization", "char")
BY_STEPS, BY_TIME = ("--save-interval", "2"), ("--set", "training.save_interval_s=0.05")
SAVE_INTERVAL = 2


@dataclass
class Tally:
    """What was done to the runs of one test."""

    kills: int = 0
    inside_a_save: int = 0
    runs: int = 0
    most_lost: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def count(self, life: Life) -> None:
        self.kills += 1
        self.inside_a_save += life.died_in_a_save()
        self.most_lost = max(self.most_lost, life.lost_steps())

    def __str__(self) -> str:
        return (
            f"{self.kills:,} kills in {self.runs} runs, {self.inside_a_save:,} of them inside a save, at most "
            f"{self.most_lost} steps lost, {time.monotonic() - self.started_s:.0f} s: the same bits"
        )


@dataclass(frozen=True)
class Killer:
    """Kills runs with the given settings at random moments, and compares each with an unbroken one."""

    forks: Forks
    folder: Path
    chance: random.Random
    tell: Callable[[str], None]
    record: Callable[[str, object], None]

    def prove(
        self,
        *settings: str,
        kills: int,
        inside: int = 0,
        save_interval: int | None = SAVE_INTERVAL,
        launched: bool = False,
    ) -> None:
        """Kill until there were enough kills, and enough inside a save, and all begun runs have ended."""
        tally = Tally()

        def enough() -> bool:
            return tally.kills >= kills and (tally.inside_a_save >= inside or tally.kills >= 10 * kills)

        while not enough():
            train = (*TINY, *EVALUATED, *settings, "--seed", tally.runs, "--max-iters", STEPS)
            unbroken = Run(self.forks, self.folder, f"unbroken-{tally.runs}", train)
            longest_s = LIFE_IN_STARTS * unbroken.to_the_end()
            name, truth = f"broken-{tally.runs}", unbroken.chain()
            broken = Run(self.forks, self.folder, name, train, truth, save_interval, launched)
            self._kill_until_done(broken, longest_s, tally, enough)
            require_same_end(unbroken, broken)
            # What the states do not hold, as the chance of the next dropout, shows in the steps that follow.
            for run in (unbroken, Run(self.forks, self.folder, name, train)):
                run.to_the_end("--max-iters", STEPS + 10)
            require_same_end(unbroken, broken)
            tally.runs += 1
            self.tell(str(tally))
        assert tally.inside_a_save >= inside
        self.record("proven", str(tally))

    def _kill_until_done(self, run: Run, longest_s: float, tally: Tally, enough: Callable[[], bool]) -> None:
        while True:
            life = run.begin()
            lives_s = 120 if enough() else self.chance.uniform(0, longest_s)
            if not life.ends_within(lives_s) and life.kill():
                tally.count(life)
            life.require_nothing_lost()
            if life.has_ended:
                return
            # A machine gets slower and faster: two of three lives are to reach their first step.
            longest_s *= 0.95 if life.has_stepped else 1.1


@pytest.fixture
def killer(
    forks: Forks, tmp_path: Path, record_property: Callable[[str, object], None], capfd: pytest.CaptureFixture[str]
) -> Killer:
    """A text, and one who kills what trains on it."""
    (tmp_path / "tale.txt").write_text(tale(600), encoding="utf-8")
    seed = os.environ.get("MYPT_CHAOS_SEED") or str(random.SystemRandom().randrange(2**32))
    print(f"to have the same moments again: MYPT_CHAOS_SEED={seed}")  # noqa: T201 - shown when the test fails

    def tell(line: str) -> None:
        if CHAOS:
            with capfd.disabled():
                os.write(2, f"\n{line}".encode())

    return Killer(forks, tmp_path, random.Random(seed), tell, record_property)


@pytest.mark.long
def test_a_run_killed_at_random_moments_equals_an_unbroken_one(killer: Killer) -> None:
    killer.prove(*TEXT, *BY_STEPS, kills=KILLS, inside=INSIDE)


@pytest.mark.long
def test_saves_by_time(killer: Killer) -> None:
    killer.prove(*TEXT, *BY_TIME, kills=KILLS_OF_A_VARIANT, save_interval=None)


@pytest.mark.long
def test_a_dataset_with_documents_kept_apart(killer: Killer) -> None:
    prepare = ("prepare-dataset", "tale.txt", "--tokenization", "char", "--out-dir", "data", "--workers", "1")
    process = killer.forks.start(*prepare, "--document-separator", "\n\n", cwd=killer.folder)
    assert killer.forks.wait(process) == 0
    killer.prove("--dataset-dir", "data", "--document-mask", *BY_STEPS, kills=KILLS_OF_A_VARIANT)


@pytest.mark.long
def test_batches_in_parts(killer: Killer) -> None:
    killer.prove(*TEXT, *BY_STEPS, "--micro-batch-size", "3", kills=KILLS_OF_A_VARIANT)


@pytest.mark.long
def test_muon_in_parts(killer: Killer) -> None:
    muon = ("--optimizer", "muon", "--schedule", "wsd", "--micro-batch-size", "3")
    killer.prove(*TEXT, *BY_STEPS, *muon, kills=KILLS_OF_A_VARIANT)


@pytest.mark.long
def test_a_launcher_and_its_child_killed_together(killer: Killer) -> None:
    killer.prove(*TEXT, *BY_STEPS, kills=KILLS_OF_A_VARIANT, launched=True)


def test_what_a_kill_after_the_last_save_left_goes_with_the_next_start(killer: Killer) -> None:
    run = Run(killer.forks, killer.folder, "complete", (*TINY, *TEXT, "--max-iters", "2"))
    run.to_the_end()
    half_deleted = run.directory.path / ".tmp-old-step-00000001-77"
    half_deleted.mkdir()
    (half_deleted / "model.safetensors").write_bytes(b"half")
    run.to_the_end()
    assert not run.leftovers()
