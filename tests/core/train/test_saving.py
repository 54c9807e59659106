"""Saving beside the training: when, one at a time, of the right moment, and never failing in silence."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.core.checkpoint.retention import best_of
from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE, State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.cadence import Cadence
from mypt.core.train.run import train
from mypt.errors import CheckpointError
from mypt.events import Evaluated, Event, Finished, Saved, StepDone, Warned
from mypt.records.run import RunConfig, TrainingConfig


def run(config: RunConfig, directory: ModelDirectory, **changes: Any) -> list[Event]:
    return list(train(config.model_copy(update={"training": config.training.model_copy(update=changes)}), directory))


def saved_steps(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, Saved)]


@contextmanager
def publishing(monkeypatch: pytest.MonkeyPatch, wrapped: Any) -> Iterator[None]:
    """Put something around the writing of every state."""
    publish = ModelDirectory.publish

    def around(self: ModelDirectory, contents: Contents) -> tuple[State, int]:
        return wrapped(lambda: publish(self, contents), contents)

    with monkeypatch.context() as patched:
        patched.setattr(ModelDirectory, "publish", around)
        yield


def tensors(state: State) -> tuple[bytes, bytes]:
    return (state.path / MODEL_FILE).read_bytes(), (state.path / OPTIMIZER_FILE).read_bytes()


def test_what_a_slow_disk_writes_is_the_state_of_the_step_it_was_begun_at(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run.model_copy(
        update={"training": tiny_run.training.model_copy(update={"eval_interval": 100, "save_interval": 10})}
    )
    quick, slow = ModelDirectory(tmp_path, "quick"), ModelDirectory(tmp_path, "slow")
    with closing(train(config, quick)) as events:
        next(event for event in events if isinstance(event, StepDone) and event.step == 10)
    trained_on: list[int] = []

    def slowly(write: Any, contents: Contents) -> Any:
        while contents.training.step == 10 and len(trained_on) < 5:
            time.sleep(0.01)  # the training has to go on meanwhile
        return write()

    with publishing(monkeypatch, slowly), closing(train(config, slow)) as events:
        for event in events:
            if isinstance(event, StepDone) and event.step > 10:
                trained_on.append(event.step)
            if isinstance(event, Saved):
                break
        assert len(trained_on) >= 5, "told when it was done, and not before"
        assert tensors(slow.states()[0]) == tensors(quick.states()[0])


def test_states_are_written_one_at_a_time(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, most = 0, 0
    guard = threading.Lock()

    def counted(write: Any, _: Contents) -> Any:
        nonlocal writing, most
        with guard:
            writing += 1
            most = max(most, writing)
        time.sleep(0.02)
        result = write()
        with guard:
            writing -= 1
        return result

    with publishing(monkeypatch, counted):
        events = run(tiny_run, directory, max_iters=12, eval_interval=100, save_interval=1)
    assert most == 1
    assert saved_steps(events) == list(range(1, 13))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.stalled_s > 10 * 0.02, "waiting for a slow disk is counted"


def fails_at(*steps: int) -> Any:
    def failing(write: Any, contents: Contents) -> Any:
        if contents.training.step in steps:
            raise CheckpointError("disk: cannot save (full; needs 2 MiB, 1 MiB free)", hint="The previous is intact.")
        return write()

    return failing


def test_a_failed_save_warns_at_the_next_step_and_training_goes_on(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publishing(monkeypatch, fails_at(4)):
        events = run(tiny_run, directory, max_iters=8, eval_interval=100, save_interval=2)
    assert saved_steps(events) == [2, 6, 8]
    warned = [
        index for index, event in enumerate(events) if isinstance(event, Warned) and "cannot save" in event.message
    ]
    assert len(warned) == 1
    steps_before = [event.step for event in events[: warned[0]] if isinstance(event, StepDone)]
    assert steps_before[-1] in {4, 5, 6}


def test_a_failed_save_stops_the_run_when_told_so(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = fails_at(4)
    attempts: list[int] = []

    def failing_once(write: Any, contents: Contents) -> Any:
        attempts.append(contents.training.step)
        return write() if attempts.count(4) > 1 else failing(write, contents)

    with publishing(monkeypatch, failing_once), pytest.raises(CheckpointError, match="cannot save"):
        run(tiny_run, directory, max_iters=50, eval_interval=100, save_interval=2, on_save_error="stop")
    newest, before = directory.states()
    assert before.step == 2
    assert newest.step in {4, 5, 6}, "the step the run has reached is tried once more, and this disk has room again"


@pytest.mark.parametrize("on_save_error", ["warn", "stop"])
def test_a_failed_last_save_is_an_error_in_any_case(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch, on_save_error: str
) -> None:
    with publishing(monkeypatch, fails_at(5)), pytest.raises(CheckpointError, match="cannot save"):
        run(tiny_run, directory, max_iters=5, eval_interval=100, on_save_error=on_save_error)


def test_an_error_in_the_run_lets_the_write_under_way_end(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def slowly(write: Any, _: Contents) -> Any:
        begun.set()
        time.sleep(0.2)
        return write()

    config = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update={"save_interval": 3})})
    with publishing(monkeypatch, slowly):
        events = train(config, directory)
        next(event for event in events if isinstance(event, StepDone) and event.step == 3)
        next(events)  # step 4, while 3 is being written
        assert begun.wait(10)
        with pytest.raises(KeyError):
            events.throw(KeyError("a bug"))
    assert [state.step for state in directory.states()] == [3]


def test_a_run_may_be_closed_by_another_thread(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events = train(tiny_run, directory)
    next(event for event in events if isinstance(event, StepDone) and event.step == 3)
    closing_thread = threading.Thread(target=events.close)
    closing_thread.start()
    closing_thread.join()
    assert directory.states()[0].step == 3
    assert saved_steps(run(tiny_run, directory, max_iters=5, eval_interval=100)) == [5]


def test_who_interrupts_the_waiting_for_a_write_does_not_leave_it_alone(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is free only when nobody writes any more."""

    def slowly(write: Any, contents: Contents) -> Any:
        if contents.training.step == 2:
            time.sleep(0.1)
            signal.raise_signal(signal.SIGINT)  # while the main thread waits to begin the next one
            time.sleep(0.3)
        return write()

    with publishing(monkeypatch, slowly), pytest.raises(KeyboardInterrupt):
        run(tiny_run, directory, max_iters=4000, eval_interval=10_000, save_interval=2)
    assert not any(thread.name == "mypt-save" for thread in threading.enumerate())
    assert [state.step for state in directory.states()] == [2]


def test_the_best_state_is_kept_although_its_evaluation_came_after_its_save(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    """A stop in the middle of an evaluation saves the step; the run that goes on evaluates it first."""
    config = tiny_run.model_copy(
        update={"training": tiny_run.training.model_copy(update={"max_iters": 12, "eval_interval": 3})}
    )
    with closing(train(config, directory)) as events:
        next(event for event in events if isinstance(event, StepDone) and event.step == 3)
    assert directory.states()[0].training().val_step is None
    # From here on nothing gets better.
    frozen = config.training.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "save_interval": 2})
    list(train(config.model_copy(update={"training": frozen}), directory))
    assert directory.states()[0].training().best_step == 3
    assert [state.step for state in directory.states()] == [12, 10, 3]
    best = best_of(directory.states())
    assert best is not None
    assert best.step == 3


def test_every_better_evaluation_is_saved_and_the_best_one_stays(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    events = run(tiny_run, directory, max_iters=40, eval_interval=5, learning_rate=3e-2)
    best = float("inf")
    expected: list[int] = []
    for event in events:
        if isinstance(event, Evaluated) and event.val_loss < best:
            best = event.val_loss
            expected.append(event.step)
    assert sorted({*expected, 40}) == saved_steps(events)
    assert expected[-1] in [state.step for state in directory.states()]
    state = directory.states()[0].training()
    assert (state.best_val_loss, state.best_step) == (best, expected[-1])


def test_milestones_are_saved_and_kept(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    run(tiny_run, directory, max_iters=17, eval_interval=100, keep_every=4)
    assert [state.step for state in directory.states()] == [17, 16, 12, 8, 4]


def test_states_are_saved_by_the_clock(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    """However long a save takes here: one that stalls for 10 ms puts the next one off by a second."""
    clocked = tiny_run.training.model_copy(
        update={"max_iters": 100_000, "eval_interval": 100_000, "save_interval_s": 0.05}
    )
    with closing(train(tiny_run.model_copy(update={"training": clocked}), directory)) as events:
        steps = list(islice((event.step for event in events if isinstance(event, Saved)), 3))
    assert len(steps) == 3
    assert 0 < steps[0] < steps[1] < steps[2] < 100_000


@given(st.floats(0.01, 100), st.floats(0, 10), st.lists(st.floats(0.001, 5), min_size=1, max_size=200))
def test_saves_by_time_never_cost_more_than_a_hundredth_of_the_run(
    interval_s: float, stall_s: float, step_times_s: list[float]
) -> None:
    """Whatever a save costs: the stalls, the first one aside, are at most 1 % of the time between saves."""
    cadence, now_s, stalls, last_s = Cadence(TrainingConfig(save_interval_s=interval_s), 0.0), 0.0, 0, 0.0
    for step, seconds in enumerate(step_times_s, 1):
        now_s += seconds
        if cadence.due(step, now_s, is_best=False):
            assert now_s - last_s >= interval_s
            assert stalls == 0 or stall_s <= (now_s - last_s) / 100 + 1e-9
            now_s += stall_s
            stalls += 1
            last_s = now_s
            cadence.saved(now_s, stall_s)
        else:
            assert now_s - last_s < max(interval_s, 100 * stall_s)


def test_without_room_for_a_copy_training_waits_for_each_write(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, waiting = ModelDirectory(tmp_path, "beside"), ModelDirectory(tmp_path, "waiting")
    run(tiny_run, beside, max_iters=9, eval_interval=100, save_interval=2)

    def no_room(*_: object) -> bool:
        return False

    monkeypatch.setattr("mypt.core.train.run.copy_fits", no_room)
    events = run(tiny_run, waiting, max_iters=9, eval_interval=100, save_interval=2)
    kinds = [(type(event), getattr(event, "step", 0)) for event in events]
    assert kinds.index((Saved, 4)) == kinds.index((StepDone, 4)) + 1
    assert tensors(beside.states()[0]) == tensors(waiting.states()[0])
