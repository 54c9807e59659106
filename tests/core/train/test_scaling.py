"""fp16: the loss is scaled, an overflow costs a step and nothing else, and what is no number still ends the run."""

import json
import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.train.replay import replay
from mypt.core.train.run import train
from mypt.core.train.scaling import GROWS_AFTER_STEPS, LARGEST, LossScale
from mypt.errors import DivergedError
from mypt.events import Evaluated, Event, Replayed, Skipped, StepDone
from mypt.records.checkpoint import LossScaleState
from mypt.records.run import RunConfig

CPU = torch.device("cpu")
HUGE = LossScaleState(factor=2.0**24)


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    changes = {"precision": "fp16", "eval_interval": 1000} | changes
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def run(config: RunConfig, directory: ModelDirectory, **changes: Any) -> list[Event]:
    return list(train(changed(config, **changes), directory))


def published_again(directory: ModelDirectory, scaled: Mapping[str, float] | None = None, **changes: Any) -> None:
    """Publish the newest state with other facts, and with some weights multiplied."""
    state = directory.states()[0]
    weights, moments = (load_tensors(state.path / name, CPU) for name in (MODEL_FILE, OPTIMIZER_FILE))
    for name, factor in (scaled or {}).items():
        weights[name] *= factor
    training = state.training().model_copy(update=changes)
    directory.publish(Contents(state.config(), state.tokenizer(), training, weights, moments))


def test_the_scale_stays_where_it_is() -> None:
    scale = LossScale(LossScaleState(factor=2.0**10, held_steps=0), CPU)
    places = scale.factor, scale._held_steps
    for norm in (1.0, math.inf, 1.0):
        scale.step(torch.tensor(1.0), torch.tensor(norm))
    assert scale.factor is places[0]
    assert scale._held_steps is places[1]
    assert scale.state() == LossScaleState(factor=2.0**9, held_steps=1)


def scale_of(directory: ModelDirectory) -> LossScaleState:
    found = directory.states()[0].training().loss_scale
    assert found is not None
    return found


def weights_of(directory: ModelDirectory) -> dict[str, torch.Tensor]:
    return load_tensors(directory.states()[0].path / MODEL_FILE, CPU)


def tensor_bytes(directory: ModelDirectory) -> list[bytes]:
    return [(directory.states()[0].path / name).read_bytes() for name in (MODEL_FILE, OPTIMIZER_FILE)]


def stepped(state: LossScaleState, loss: float, norm: float) -> LossScaleState:
    scale = LossScale(state, CPU)
    scale.step(torch.tensor(loss), torch.tensor(norm))
    return scale.state()


def test_a_scale_halves_at_an_overflow_and_doubles_after_many_good_steps() -> None:
    held = LossScaleState(factor=1024, held_steps=GROWS_AFTER_STEPS - 2)
    held = stepped(held, 2.0, 1.0)
    assert held == LossScaleState(factor=1024, held_steps=GROWS_AFTER_STEPS - 1)
    assert stepped(held, 2.0, 1.0) == LossScaleState(factor=2048, held_steps=0)
    for norm in (math.inf, math.nan):
        assert stepped(held, 2.0, norm) == LossScaleState(factor=512, held_steps=0)


def test_a_scale_stays_between_one_and_its_largest_and_learns_nothing_from_a_loss_that_is_no_number() -> None:
    least = LossScaleState(factor=1, held_steps=7)
    assert stepped(least, 2.0, math.inf) == least
    most = LossScaleState(factor=LARGEST, held_steps=GROWS_AFTER_STEPS - 1)
    assert stepped(most, 2.0, 1.0) == LossScaleState(factor=LARGEST, held_steps=0)
    for loss in (math.nan, math.inf):
        for norm in (1.0, math.nan):
            assert stepped(HUGE, loss, norm) == HUGE


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_fp16_learns_what_fp32_learns(tiny_run: RunConfig, tmp_path: Path, optimizer: str) -> None:
    ends: dict[str, float] = {}
    tiny_run = changed(tiny_run, kernels="off")  # fp16 has none, and what is dropped is to be the same
    for precision in ("fp32", "fp16"):
        events = run(tiny_run, ModelDirectory(tmp_path, precision), precision=precision, optimizer=optimizer)
        losses = [event.loss for event in events if isinstance(event, StepDone)]
        assert losses[-1] < losses[0] - 0.8
        ends[precision] = next(event.val_loss for event in events if isinstance(event, Evaluated))
    assert ends["fp16"] == pytest.approx(ends["fp32"], abs=0.01)


def test_the_saved_scale_is_that_of_the_run_and_of_fp16_alone(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    run(tiny_run, directory, max_iters=5)
    assert scale_of(directory) == LossScaleState(factor=2.0**16, held_steps=5)
    run(tiny_run, directory, max_iters=7, precision="fp32")
    assert directory.states()[0].training().loss_scale is None


@pytest.mark.parametrize("grad_clip", [0.0, 0.05])
def test_clipping_and_moments_see_true_gradients(tiny_run: RunConfig, tmp_path: Path, grad_clip: float) -> None:
    """AdamW's first moments are means of gradients, as they are after clipping and whatever the scale."""
    moments: list[torch.Tensor] = []
    tiny_run = changed(tiny_run, kernels="off")  # fp16 has none, and what is dropped is to be the same
    for name, precision, factor in [("wide", "fp32", None), ("one", "fp16", 2.0**10), ("other", "fp16", 2.0**16)]:
        directory = ModelDirectory(tmp_path, name)
        run(tiny_run, directory, max_iters=1, max_skips=0, precision=precision, grad_clip=grad_clip)
        if factor is not None:
            published_again(directory, loss_scale=LossScaleState(factor=factor))
        run(tiny_run, directory, max_iters=2, precision=precision, grad_clip=grad_clip)
        found = load_tensors(directory.states()[0].path / OPTIMIZER_FILE, CPU)
        moments.append(torch.cat([found[key].flatten() for key in sorted(found) if key.endswith("/exp_avg")]))
    for narrow in moments[1:]:
        assert ((narrow - moments[0]).norm() / moments[0].norm()).item() < 1e-2


def test_an_overflow_changes_the_scale_and_neither_weights_nor_moments_and_is_no_skip(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    run(tiny_run, directory, max_iters=3)
    before = tensor_bytes(directory)
    published_again(directory, loss_scale=HUGE)
    events = run(tiny_run, directory, max_iters=4, max_skips=0)
    assert tensor_bytes(directory) == before
    assert scale_of(directory) == LossScaleState(factor=HUGE.factor / 2, held_steps=0)
    assert not any(isinstance(event, Skipped) for event in events)
    state = directory.states()[0].training()
    assert (state.step, state.samples_seen, state.skipped_steps) == (4, 16, ())
    assert [event.step for event in events if isinstance(event, StepDone)] == [4]
    run(tiny_run, directory, max_iters=30, max_skips=0)
    assert 1 < scale_of(directory).factor < HUGE.factor
    assert tensor_bytes(directory) != before


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_resumed_amid_overflows_equals_the_unbroken_one(
    tiny_run: RunConfig, tmp_path: Path, optimizer: str
) -> None:
    whole, broken = ModelDirectory(tmp_path, "whole"), ModelDirectory(tmp_path, "broken")
    for directory in (whole, broken):
        run(tiny_run, directory, max_iters=2, optimizer=optimizer)
        published_again(directory, loss_scale=HUGE)
    run(tiny_run, whole, max_iters=24, optimizer=optimizer)
    for step in (3, 5, 9, 14):
        with closing(train(changed(tiny_run, max_iters=24, optimizer=optimizer), broken)) as events:
            next(event for event in events if isinstance(event, StepDone) and event.step == step)
        assert broken.states()[0].step == step
    run(tiny_run, broken, max_iters=24, optimizer=optimizer)
    assert scale_of(broken) == scale_of(whole)
    assert scale_of(whole).factor < HUGE.factor
    assert tensor_bytes(broken) == tensor_bytes(whole)


def test_overflows_done_again_give_the_same_bits(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    run(tiny_run, directory, max_iters=2)
    published_again(directory, loss_scale=HUGE)
    run(tiny_run, directory, max_iters=12, save_interval=3)
    replayed = list(replay(directory))[-1]
    assert isinstance(replayed, Replayed)
    assert replayed.differing == ()


def test_a_loss_that_is_no_number_ends_an_fp16_run_as_any_other(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    run(tiny_run, directory, max_iters=2)
    published_again(directory, {"final_norm.weight": 3e38})
    with pytest.raises(DivergedError, match="Left out for that so far: steps 3, 4, 5, 6"):
        run(tiny_run, directory, max_iters=9)
    assert [state.step for state in directory.states()] == [2]


def test_a_gradient_that_no_scale_makes_finite_ends_the_run(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    """What comes into a matrix of zeros is as large as fp16 can hold, and nothing of it goes on into the loss."""
    run(tiny_run, directory, max_iters=2)
    wild = {"blocks.1.mlp.up.weight": 1e5, "blocks.1.mlp.down.weight": 0.0, "final_norm.weight": 1000.0}
    published_again(directory, wild, loss_scale=LossScaleState(factor=4))
    with pytest.raises(DivergedError, match="Left out for that so far: steps 5, 6, 7, 8"):
        run(tiny_run, directory, max_iters=20)
    lines = [json.loads(line) for line in directory.metrics_path.read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "skipped"] == [5, 6, 7, 8]
