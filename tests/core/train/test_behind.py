"""A device that is one step ahead of what is read of it: the same is told, once and in order."""

from pathlib import Path
from typing import Any

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.loop import Loop
from mypt.core.train.run import train
from mypt.events import Evaluated, Event, Finished, Saved, StepDone
from mypt.records.run import RunConfig


def read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    usual = Loop.__init__

    def late(loop: Loop, *arguments: Any, **settings: Any) -> None:
        usual(loop, *arguments, **settings)
        loop._behind = 1

    monkeypatch.setattr(Loop, "__init__", late)


def trained(config: RunConfig, root: Path, **settings: Any) -> list[Event]:
    training = config.training.model_copy(update={"max_iters": 20, "eval_interval": 6, "eval_iters": 1} | settings)
    return list(train(config.model_copy(update={"training": training}), ModelDirectory(root, "model")))


def told(events: list[Event]) -> list[tuple[str, int, float | None]]:
    found: list[tuple[str, int, float | None]] = []
    for event in events:
        if isinstance(event, StepDone | Finished):
            found.append((type(event).__name__, event.step, event.loss))
        elif isinstance(event, Evaluated):
            found.append(("Evaluated", event.step, event.val_loss))
    return found


@pytest.mark.parametrize("log_interval", [1, 4, 7, 1000])
def test_what_is_read_late_is_told_once_and_in_order(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_interval: int
) -> None:
    at_once = trained(tiny_run, tmp_path / "at once", log_interval=log_interval)
    read_late(monkeypatch)
    late = trained(tiny_run, tmp_path / "late", log_interval=log_interval)
    assert sorted(told(late)) == sorted(told(at_once))
    steps = [event.step for event in late if isinstance(event, StepDone)]
    assert steps == sorted(set(steps)) == sorted({1, 20, *range(log_interval, 21, log_interval)})
    assert all(event.tokens_per_s > 0 for event in late if isinstance(event, StepDone))
    seen = [event.tokens_seen for event in late if isinstance(event, StepDone)]
    assert seen == [step * 4 * 32 for step in steps]
    files = ("model.safetensors", "optimizer.safetensors")
    states = [ModelDirectory(tmp_path / name, "model").states()[0].path for name in ("at once", "late")]
    assert all((states[0] / name).read_bytes() == (states[1] / name).read_bytes() for name in files)
    logs = [(tmp_path / name / "model" / "metrics.jsonl").read_text().count("\n") for name in ("at once", "late")]
    assert logs[0] == logs[1]


def test_a_step_is_told_before_what_is_made_of_it(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_late(monkeypatch)
    newest = 0
    for event in trained(tiny_run, tmp_path, save_interval=5):
        if isinstance(event, StepDone):
            newest = event.step
        elif isinstance(event, Evaluated):
            assert newest == event.step
        elif isinstance(event, Saved):
            assert newest >= event.step
    assert newest == 20
