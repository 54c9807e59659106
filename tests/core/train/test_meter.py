"""Tokens per second are true tokens over true seconds, and every second of a run is told to one of its parts."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.device import choose_device
from mypt.core.tokens.base import Ids
from mypt.core.train.loop import Loop
from mypt.core.train.meter import PARTS, Meter, Part
from mypt.core.train.metrics import MetricsLog
from mypt.core.train.run import train
from mypt.core.train.start import Origin, begin
from mypt.events import Evaluated, Event, Finished, StepDone
from mypt.records.run import RunConfig
from mypt.records.tokenizer import ByteSpec


class Clock:
    """Shows the time that was set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Run:
    """A meter of 100 tokens a step, and a clock that goes when it is told to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.meter = Meter(100, self.clock)

    def spend(self, part: Part, seconds: float) -> None:
        with self.meter.spending(part):
            self.clock.now_s += seconds

    def step(self, seconds: float, waited_s: float = 0.0) -> None:
        self.spend("steps", seconds)
        self.meter.step(waited_s)


@pytest.fixture
def run() -> Run:
    return Run()


def test_speed_is_tokens_over_seconds(run: Run) -> None:
    run.step(1.0)
    run.step(3.0)
    assert run.meter.tokens_per_s == 2 * 100 / 4.0


def test_only_steps_and_waiting_for_their_batches_count_for_the_speed(run: Run) -> None:
    run.step(2.0, waited_s=1.5)
    for part in ("evaluation", "saving", "logging", "other"):
        run.spend(part, 10.0)
    assert run.meter.tokens_per_s == 100 / 2.0
    assert run.meter.spent_s()["batches"] == 1.5


def test_a_lap_covers_only_the_steps_since_the_last_one(run: Run) -> None:
    run.step(10.0)
    assert run.meter.lap_tokens_per_s() == 100 / 10.0
    run.step(1.0)
    run.spend("logging", 5.0)
    run.step(1.0)
    assert run.meter.lap_tokens_per_s() == 200 / 2.0


def test_seconds_the_device_still_worked_belong_to_the_steps(run: Run) -> None:
    run.step(1.0)
    run.spend("steps", 4.0)  # reading waits for what was only sent to the device
    assert run.meter.tokens_per_s == 100 / 5.0


def test_remaining_time_counts_all_parts(run: Run) -> None:
    run.step(1.0)
    run.spend("evaluation", 4.0)
    run.step(1.0)
    assert run.meter.eta_s(10) == 6.0 / 2 * 10


def test_nothing_done_has_no_speed(run: Run) -> None:
    assert run.meter.tokens_per_s == 0.0
    assert run.meter.eta_s(5) == 0.0


def test_a_part_within_a_part_is_no_time_of_the_outer_one(run: Run) -> None:
    with run.meter.spending("evaluation"):
        run.spend("logging", 3.0)
        run.clock.now_s += 1.0
    run.clock.now_s += 0.5
    assert run.meter.spent_s() == dict.fromkeys(PARTS, 0.0) | {"logging": 3.0, "evaluation": 1.0, "other": 0.5}


@given(st.lists(st.tuples(st.sampled_from(PARTS), st.floats(0, 1e4), st.floats(0, 1e4))))
def test_parts_are_not_negative_and_add_up(spans: list[tuple[Part, float, float]]) -> None:
    run = Run()
    for part, seconds, waited_s in spans:
        run.spend(part, seconds)
        run.meter.step(waited_s)
    spent_s = run.meter.spent_s()
    assert min(spent_s.values()) >= 0
    assert sum(spent_s.values()) == pytest.approx(run.meter.elapsed_s)


def finished(events: list[Event]) -> Finished:
    """The last event, whose parts are sound."""
    end = events[-1]
    assert isinstance(end, Finished)
    assert set(end.spent_s) == set(PARTS)
    assert min(end.spent_s.values()) >= 0
    assert sum(end.spent_s.values()) == pytest.approx(end.elapsed_s)
    return end


def test_a_run_says_what_its_seconds_went_to(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    began_s = time.monotonic()
    events = list(train(tiny_run, directory))
    whole_s = time.monotonic() - began_s
    end = finished(events)
    assert 0 < end.elapsed_s <= whole_s
    assert all(end.spent_s[part] > 0 for part in ("steps", "batches", "evaluation", "saving", "logging"))
    evaluated_s = sum(event.elapsed_s for event in events if isinstance(event, Evaluated))
    assert end.spent_s["evaluation"] <= evaluated_s
    tokens = sum(isinstance(event, StepDone) for event in events) * 4 * 32
    assert end.tokens_per_s == pytest.approx(tokens / (end.spent_s["steps"] + end.spent_s["batches"]))
    assert end.mfu is None, "a CPU has no peak"


def test_what_the_reader_of_the_events_takes_is_no_time_of_steps(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    nap_s, events, slept_s = 0.02, list[Event](), 0.0
    for event in train(tiny_run, directory):
        events.append(event)
        if isinstance(event, StepDone | Evaluated):
            began_s = time.monotonic()
            time.sleep(nap_s)
            slept_s += time.monotonic() - began_s
    end = finished(events)
    assert end.spent_s["logging"] >= slept_s > 60 * nap_s
    speeds = [event.tokens_per_s for event in events if isinstance(event, StepDone)]
    stepping_s = sum(4 * 32 / speed for speed in speeds)
    assert stepping_s <= end.elapsed_s - slept_s, "no step was told to have slept"


@dataclass(frozen=True, slots=True)
class SlowShard(MemoryShard):
    """Tokens on a disk that takes its time."""

    nap_s: float = 0.5

    def read(self, offset: int, count: int) -> Ids:
        time.sleep(self.nap_s)
        return self.ids[offset : offset + count]


def test_waiting_for_a_slow_text_is_no_time_of_steps(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    ids = np.arange(4000, dtype=np.uint16) % 256
    corpus = Corpus(ByteSpec(), TokenStream([SlowShard(ids)]), TokenStream([]), "slow")
    training = tiny_run.training.model_copy(update={"batch_size": 1, "max_iters": 2})
    model = tiny_run.model.model_copy(update={"vocab_size": 256})
    config = tiny_run.model_copy(update={"training": training, "model": model})
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with closing(log), closing(begin(config, corpus, Origin(), choose_device("cpu"))) as session:
        end = finished(list(Loop(session, directory, log, lambda: False, beside=False).run()))
    # The first batch is waited for from its first token on; the second is made beside the first step.
    assert end.spent_s["batches"] >= SlowShard(ids).nap_s
    assert end.spent_s["steps"] <= end.elapsed_s - end.spent_s["batches"]
    assert end.tokens_per_s <= 2 * 32 / end.spent_s["batches"], "the speed is that of steps with their batches"
