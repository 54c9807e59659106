"""A step without numbers changes nothing, is named with its texts, and may not come often."""

import ast
import json
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.core.train.run import train
from mypt.errors import DivergedError
from mypt.events import Evaluated, Event, Saved, Skipped, StepDone
from mypt.records.run import RunConfig

Poison = Callable[[Tensor], Tensor]


def nan_loss(loss: Tensor) -> Tensor:
    return loss * math.nan


def infinite_gradient(loss: Tensor) -> Tensor:
    """The value stays as it is."""

    def to_infinity(gradient: Tensor) -> Tensor:
        return gradient * math.inf

    loss.register_hook(to_infinity)
    return loss


@contextmanager
def poisoned(monkeypatch: pytest.MonkeyPatch, *calls: int, poison: Poison = nan_loss) -> Iterator[None]:
    """Poison these losses, counted from 1 on, of the whole process."""
    sound, count = GPT.loss, 0

    def loss(self: GPT, *batch: Any, **named: Any) -> Tensor:
        nonlocal count
        count += 1
        found = sound(self, *batch, **named)
        return poison(found) if count in calls else found

    with monkeypatch.context() as patched:
        patched.setattr(GPT, "loss", loss)
        yield


def begun(config: RunConfig, directory: ModelDirectory, **changes: Any) -> Generator[Event]:
    return train(config.model_copy(update={"training": config.training.model_copy(update=changes)}), directory)


def run(config: RunConfig, directory: ModelDirectory, **changes: Any) -> list[Event]:
    return list(begun(config, directory, **changes))


def stopped_after(step: int, config: RunConfig, directory: ModelDirectory, **changes: Any) -> None:
    with closing(begun(config, directory, **changes)) as events:
        next(event for event in events if isinstance(event, StepDone) and event.step == step)


def tensors(directory: ModelDirectory) -> dict[str, bytes]:
    state = directory.states()[0].path
    return {name: (state / name).read_bytes() for name in (MODEL_FILE, OPTIMIZER_FILE)}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("poison", [nan_loss, infinite_gradient])
def test_a_step_without_numbers_changes_neither_weights_nor_moments(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Poison, optimizer: str
) -> None:
    tiny_run = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update={"optimizer": optimizer})})
    whole, poisoned_, closed = (ModelDirectory(tmp_path, name) for name in ("whole", "poisoned", "closed"))
    run(tiny_run, whole, max_iters=30, eval_interval=100)
    with poisoned(monkeypatch, 30, poison=poison):
        run(tiny_run, poisoned_, max_iters=30, eval_interval=100)
    stopped_after(29, tiny_run, closed, max_iters=30, eval_interval=100)
    assert tensors(poisoned_) == tensors(closed) != tensors(whole)
    state = poisoned_.states()[0].training()
    assert (state.step, state.samples_seen, state.skipped_steps) == (29, 116, ()), "the newest step that was applied"


def test_leaving_a_step_out_is_going_back_and_leaving_its_batch_out(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, returned = ModelDirectory(tmp_path, "straight"), ModelDirectory(tmp_path, "returned")
    with poisoned(monkeypatch, 5):
        run(tiny_run, straight, max_iters=8, eval_interval=100)
    stopped_after(3, tiny_run, returned, max_iters=8, eval_interval=100)
    with poisoned(monkeypatch, 2):  # step 5 of the run, the second of this process
        run(tiny_run, returned, max_iters=8, eval_interval=100)
    assert tensors(straight) == tensors(returned)


def test_what_was_left_out_is_told_with_its_texts(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with poisoned(monkeypatch, 4):
        events = run(tiny_run, directory, max_iters=6, eval_interval=100, log_interval=6)
    told = next(event for event in events if isinstance(event, Skipped))
    assert (told.step, told.samples) == (4, (12, 15))
    assert "loss is nan" in told.problem
    assert len(told.texts) == 4
    for place in told.texts:
        name, _, rest = place.partition(", token ")
        offset, _, beginning = rest.partition(": ")
        assert name == tiny_run.data.input_files[0]
        begins = ast.literal_eval(beginning)
        assert text[int(offset.replace(",", "")) :].startswith(begins)
        assert len(begins) == 24
    lines = [json.loads(line) for line in directory.metrics_path.read_text().splitlines()]
    assert [line for line in lines if line["event"] == "skipped"] == [json.loads(told.as_json())]
    steps = [event.step for event in events if isinstance(event, StepDone)]
    assert 4 not in steps


def test_no_state_is_saved_at_a_step_that_was_left_out(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due there is the state before it, once."""
    with poisoned(monkeypatch, 4, 5):
        events = run(tiny_run, directory, max_iters=7, eval_interval=100, save_interval=2)
    assert [event.step for event in events if isinstance(event, Saved)] == [2, 3, 6, 7]


def test_stops_between_steps_left_out_keep_the_last_good_state(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with poisoned(monkeypatch, *range(6, 100)):
        for _ in range(3):
            with closing(begun(tiny_run, directory, max_iters=20, eval_interval=100, save_interval=5)) as events:
                next(event for event in events if isinstance(event, Skipped) and event.step == 7)
            assert [state.step for state in directory.states()] == [5]
    again = run(tiny_run, directory, max_iters=20, eval_interval=100)
    assert [event.step for event in again if isinstance(event, StepDone)] == list(range(6, 21))


def test_an_evaluation_at_a_step_left_out_is_of_the_weights_before_it(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with poisoned(monkeypatch, 4):
        events = run(tiny_run, directory, max_iters=6, eval_interval=4, save_interval=100)
    assert [event.step for event in events if isinstance(event, Evaluated)] == [4, 6]
    assert [event.step for event in events if isinstance(event, Saved)] == [3, 6]
    assert directory.states()[-1].training().best_step == 3


def test_more_than_allowed_ends_the_run_with_exit_6_and_its_samples(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with poisoned(monkeypatch, 3, 5, 7, 9), pytest.raises(DivergedError, match="samples 32 to 35") as caught:
        run(tiny_run, directory, max_iters=20, eval_interval=100, save_interval=4)
    assert caught.value.exit_code == 6
    assert "steps 3, 5, 7, 9; allowed are 3" in caught.value.message
    assert [state.step for state in directory.states()] == [8, 4]
    # They count over the whole run, also when it is gone on with.
    with poisoned(monkeypatch, 1), pytest.raises(DivergedError, match="steps 3, 5, 7, 9"):
        run(tiny_run, directory, max_iters=20, eval_interval=100, save_interval=4)
    assert run(tiny_run, directory, max_iters=10, eval_interval=100)[-1].event == "finished"


def test_none_allowed_means_none(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with poisoned(monkeypatch, 2), pytest.raises(DivergedError):
        run(tiny_run, directory, max_iters=4, eval_interval=100, max_skips=0)
