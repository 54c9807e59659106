"""A length in tokens or in time becomes a number of steps, once and for all."""

from collections.abc import Iterable

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import choose_device
from mypt.core.train import length as module
from mypt.core.train import pace
from mypt.core.train.run import train
from mypt.core.train.session import Session
from mypt.errors import UsageError
from mypt.events import Event, Finished, Noted, RunPlanned, StepDone
from mypt.records.length import Length
from mypt.records.run import RunConfig


def with_training(config: RunConfig, **changes: object) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def planned(events: Iterable[Event]) -> RunPlanned:
    return next(event for event in events if isinstance(event, RunPlanned))


def files(directory: ModelDirectory) -> dict[str, bytes]:
    state = directory.states()[0].path
    return {name: (state / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


def test_tokens_are_rounded_up_to_whole_steps(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events = list(train(tiny_run, directory, length=Length(tokens=129)))
    assert planned(events).max_iters == 2
    assert isinstance(events[-1], Finished)
    assert (events[-1].step, events[-1].reason) == (2, "completed")
    assert directory.states()[0].training().training.max_iters == 2


def test_tokens_per_parameter_count_the_parameters_of_a_texts_vocabulary(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    plan = planned(train(tiny_run, directory, length=Length(tokens_per_parameter=0.5)))
    assert plan.max_iters == -(-plan.parameters // (2 * 128))


def test_steps_that_were_done_with_another_batch_size_count_by_their_tokens(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    list(train(tiny_run, directory, length=Length(tokens=4 * 128)))
    smaller = with_training(tiny_run, batch_size=2)
    assert planned(train(smaller, directory, length=Length(tokens=6 * 128))).max_iters == 4 + 2 * 2


def test_no_tokens_left_means_complete(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    for _ in range(2):
        events = list(train(tiny_run, directory, length=Length(tokens=300)))
    assert isinstance(events[-1], Finished)
    assert (events[-1].step, events[-1].reason) == (3, "already complete")


def test_more_steps_than_a_run_may_have_are_refused(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    with pytest.raises(UsageError, match="the length of the run: max_iters = 78"):
        list(train(tiny_run, directory, length=Length(tokens=1e13)))
    assert not directory.states()


def test_a_duration_holds_steps_and_evaluations(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_s(_session: Session, duration_s: float) -> float:
        assert duration_s == 10_000
        return 0.1

    def evaluation_s(_session: Session) -> float:
        return 3.0

    monkeypatch.setattr(module, "seconds_per_step", step_s)
    monkeypatch.setattr(module, "seconds_per_evaluation", evaluation_s)
    plan = planned(train(tiny_run, directory, length=Length(duration_s=10_000)))
    steps = plan.max_iters
    assert steps * 0.1 + steps / tiny_run.training.eval_interval * 3 == pytest.approx(10_000, rel=0.01)


def test_a_run_sized_by_time_goes_on_to_the_same_step_with_the_same_bits(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    events = train(tiny_run, directory, length=Length(duration_s=1.0))
    steps = planned(events).max_iters
    next(event for event in events if isinstance(event, StepDone) and event.step == 2)
    events.close()
    again = list(train(tiny_run, directory, length=Length(duration_s=50.0)))
    assert any(isinstance(event, Noted) and f"{steps:,} steps" in event.message for event in again)
    assert planned(again).max_iters == steps
    unbroken = ModelDirectory(directory.path.parent, "unbroken")
    list(train(with_training(tiny_run, max_iters=steps), unbroken))
    assert files(directory) == files(unbroken)


def test_measuring_takes_one_percent_of_the_time_and_at_least_five_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps:
        """A tenth of a second each, the first ones longer."""

        done, clock_s = 0, 0.0
        steps_to_prepare, device = 2, choose_device("cpu")

        def train_step(self) -> None:
            self.done += 1
            self.clock_s += 0.5 if self.done <= 2 else 0.1

        def read(self, _behind: int) -> None:
            """Nothing to wait for."""

    for duration_s, least, most in ((1, 7, 7), (1000, 102, 103)):
        steps = Steps()
        for clock in ("monotonic", "perf_counter"):
            monkeypatch.setattr(pace.time, clock, lambda steps=steps: steps.clock_s)
        assert pace.seconds_per_step(steps, duration_s) == pytest.approx(0.1)  # pyrefly: ignore[bad-argument-type]
        assert least <= steps.done <= most
