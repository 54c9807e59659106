"""When training ends by itself, and when it warns that going on does not help."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.evaluate.score import Score
from mypt.core.train.progress import Progress
from mypt.core.train.run import train
from mypt.events import Evaluated, Event, Finished, StepDone, Warned
from mypt.records.run import RunConfig


def run(config: RunConfig, directory: ModelDirectory, **changes: Any) -> list[Event]:
    return list(train(config.model_copy(update={"training": config.training.model_copy(update=changes)}), directory))


def frozen(config: RunConfig) -> RunConfig:
    """A run whose weights do not move: no evaluation is better than the first."""
    training = config.training.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "eval_interval": 2})
    return config.model_copy(update={"training": training})


def test_patience_ends_a_run_that_does_not_get_better(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events = run(frozen(tiny_run), directory, patience=3)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.step) == ("no improvement", 8)
    assert directory.states()[0].step == 8
    assert 2 in [state.step for state in directory.states()], "the best one stays"


def test_a_run_that_has_ended_for_want_of_patience_stays_ended_until_it_gets_more(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    run(frozen(tiny_run), directory, patience=3)
    again = run(frozen(tiny_run), directory, patience=3)
    assert not any(isinstance(event, StepDone) for event in again)
    assert isinstance(again[-1], Finished)
    assert again[-1].reason == "no improvement"
    longer = run(frozen(tiny_run), directory, patience=5)
    assert [event.step for event in longer if isinstance(event, Evaluated)] == [10, 12]


def test_patience_counts_over_stops(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    """Evaluations without a better one are counted over all processes of a run."""
    for stop in (3, 5, 7):
        events = train(frozen(tiny_run), directory)
        next(event for event in events if isinstance(event, StepDone) and event.step == stop)
        events.close()
    finished = run(frozen(tiny_run), directory, patience=3)[-1]
    assert isinstance(finished, Finished)
    assert finished.step == 8


def test_without_patience_a_run_ends_at_its_last_step(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    assert run(frozen(tiny_run), directory, max_iters=20)[-1].as_json().count('"completed"') == 1


def test_a_model_that_learns_its_text_by_heart_is_told_once(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Any
) -> None:
    # Random letters: there is nothing in them that helps with other ones.
    import random

    text_file.write_text("".join(random.Random(5).choices("abcdefgh", k=200)))
    data = tiny_run.data.model_copy(update={"val_fraction": 0.3})
    model = tiny_run.model.model_copy(update={"dropout": 0.0, "n_embd": 64, "block_size": 16})
    config = tiny_run.model_copy(update={"data": data, "model": model})
    events = run(config, directory, max_iters=300, eval_interval=20, batch_size=8, learning_rate=3e-3)
    warned = [event for event in events if isinstance(event, Warned) and "by heart" in event.message]
    assert len(warned) == 1
    vals = {event.step: event.val_loss for event in events if isinstance(event, Evaluated)}
    assert f"since step {min(vals, key=lambda step: vals[step])}" in warned[0].message


def test_a_model_that_learns_is_not_warned_of(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events = run(tiny_run, directory, max_iters=60, eval_interval=5)
    assert not any("by heart" in getattr(event, "message", "") for event in events)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30), st.integers(0, 30))
def test_the_best_is_the_first_of_the_lowest_also_when_the_run_was_interrupted(losses: list[float], cut: int) -> None:
    progress = Progress()
    for step, loss in enumerate(losses, 1):
        if step == cut:
            fresh = Progress(best_val_loss=progress.best_val_loss, best_step=progress.best_step)
            fresh.evaluations_since_best = progress.evaluations_since_best
            progress = fresh
        progress.applied_step = step
        progress.evaluated(Score(loss, 1.0))
    best = min(losses)
    assert progress.best_val_loss == best
    assert progress.best_step == losses.index(best) + 1
    assert progress.evaluations_since_best == len(losses) - losses.index(best) - 1


def test_what_patience_needs_is_in_the_state(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    run(frozen(tiny_run), directory, max_iters=6)
    state = json.loads((directory.states()[0].path / "training_state.json").read_text())
    assert (state["best_step"], state["evaluations_since_best"]) == (2, 2)
    assert state["best_val_loss"] == pytest.approx(state["val_loss"], rel=1e-3)
