"""What does not fit is made to fit with the same samples, or refused with what would."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mypt.core.checkpoint.state import MODEL_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.device import choose_device
from mypt.core.limits import memory_limit_bytes
from mypt.core.model.gpt import GPT
from mypt.core.model.loss import TokenScores
from mypt.core.train import memory
from mypt.core.train.memory import fitting_sequences, memory_shortage, predicted_bytes
from mypt.core.train.optimizer import build_optimizer
from mypt.core.train.run import train
from mypt.errors import MemoryShortageError
from mypt.events import Event, RunPlanned, StepDone, Warned
from mypt.records.model import ModelConfig
from mypt.records.presets import load_preset
from mypt.records.run import RunConfig

CPU = choose_device("cpu")


def run(config: RunConfig, directory: ModelDirectory, **changes: Any) -> list[Event]:
    return list(train(config.model_copy(update={"training": config.training.model_copy(update=changes)}), directory))


def without_dropout(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})


def weights(directory: ModelDirectory) -> dict[str, Tensor]:
    return load_tensors(directory.states()[0].path / MODEL_FILE, torch.device("cpu"))


def limit_memory(monkeypatch: pytest.MonkeyPatch, limit_bytes: int) -> None:
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda: limit_bytes)


def only_for(monkeypatch: pytest.MonkeyPatch, most: int, from_call: int = 1) -> None:
    """A machine whose memory takes at most so many sequences at once."""
    sound, calls = GPT.loss, 0

    def loss(self: GPT, ids_BT: Tensor, *rest: Any, **named: Any) -> Tensor:
        nonlocal calls
        calls += 1
        result = sound(self, ids_BT, *rest, **named)
        if self.training and len(ids_BT) > most and calls >= from_call:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return result

    monkeypatch.setattr(GPT, "loss", loss)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at_once", [1, 3, 4])
@pytest.mark.parametrize(("family", "optimizer"), [("gpt2", "adamw"), ("modern", "muon")])
def test_a_batch_in_pieces_learns_what_the_whole_learns(
    tiny_run: RunConfig, tmp_path: Path, at_once: int, family: str, optimizer: str, *, masked: bool
) -> None:
    """Equal in exact arithmetic; the order of the sums leaves the last digits of fp32. Three do not divide eight."""
    sizes = {"dropout": 0.0, "family": family}
    config = tiny_run.model_copy(update={"model": tiny_run.model.model_copy(update=sizes)})
    whole, pieces = ModelDirectory(tmp_path, "whole"), ModelDirectory(tmp_path, "pieces")
    settings: dict[str, Any] = {
        "batch_size": 8,
        "max_iters": 5,
        "eval_interval": 5,
        "document_mask": masked,
        "optimizer": optimizer,
        "precision": "fp32",
    }
    losses = [
        [event.loss for event in run(config, directory, **settings, micro_batch_size=size) if type(event) is StepDone]
        for directory, size in ((whole, None), (pieces, at_once))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    mine = weights(pieces)
    for name, tensor in weights(whole).items():
        assert torch.allclose(mine[name], tensor, atol=2e-4), name


def test_where_memory_runs_out_half_as_many_sequences_are_taken_and_nothing_is_lost(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From step 3 on (the third call) only two fit: the samples stay the same, and so do the bits from there."""
    small, switched = ModelDirectory(tmp_path, "small"), ModelDirectory(tmp_path, "switched")
    run(tiny_run, switched, batch_size=8, max_iters=2, eval_interval=100)
    run(tiny_run, small, batch_size=8, max_iters=2, eval_interval=100)
    run(tiny_run, small, batch_size=8, max_iters=6, eval_interval=100, micro_batch_size=2)
    only_for(monkeypatch, 2)
    events = run(tiny_run, switched, batch_size=8, max_iters=6, eval_interval=100)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert all(re.search(r"\d+ sequences at once, 8 per step as before", message) for message in told)
    assert len(told) == 2, "8 -> 4 -> 2"
    assert [event.step for event in events if isinstance(event, StepDone)] == [3, 4, 5, 6]
    state = switched.states()[0].training()
    assert state.samples_seen == 6 * 8
    mine, theirs = weights(switched), weights(small)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    # Who goes on goes on with two at once: the bits depend on it.
    assert state.training.micro_batch_size == 2


def test_when_not_even_one_fits_the_run_ends_with_exit_5_after_saving(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_for(monkeypatch, 0, from_call=4)
    with pytest.raises(MemoryShortageError, match=r"by the estimate .* that this process may have") as caught:
        run(tiny_run, directory, max_iters=9, eval_interval=100)
    assert caught.value.exit_code == 5
    assert "--checkpoint-activations needs" in caught.value.hint
    assert directory.states()[0].step == 3


def test_an_evaluation_that_does_not_fit_takes_half_as_many_too(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = GPT.scores

    def scores(self: GPT, ids_BT: Tensor, *rest: Any) -> TokenScores:
        if not self.training and len(ids_BT) > 1:
            raise torch.OutOfMemoryError
        return sound(self, ids_BT, *rest)

    whole, halved = ModelDirectory(tmp_path, "whole"), ModelDirectory(tmp_path, "halved")
    run(tiny_run, whole, max_iters=4, eval_interval=4)
    monkeypatch.setattr(GPT, "scores", scores)
    events = run(tiny_run, halved, max_iters=4, eval_interval=4)
    assert sum("4 per step as before" in getattr(event, "message", "") for event in events) == 2
    vals = [directory.states()[0].training().val_loss for directory in (whole, halved)]
    assert vals[1] == pytest.approx(vals[0], rel=1e-6)


def test_moments_made_before_the_first_step_are_those_the_first_step_would_make(tiny_run: RunConfig) -> None:
    """A shortage between the updates of two groups could not be taken back."""
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [build_optimizer(model, tiny_run.training) for model in models]
    optimizers[1].make_moments()
    for model, optimizer in zip(models, optimizers, strict=True):
        for _ in range(2):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    lazy, eager = (list(optimizer.state.values()) for optimizer in optimizers)
    assert len(lazy) == 2
    for mine, theirs in zip(eager, lazy, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) and mine[key].dtype == theirs[key].dtype for key in theirs)


def test_another_error_is_not_taken_for_a_shortage(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(GPT, "loss", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        run(tiny_run, directory, max_iters=2)


def test_the_estimate_decides_before_the_machine_would_kill_the_process(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is fastest here is decided by a trial, and might need less.
    fixed = {"batch_size": 64, "precision": "fp32", "kernels": "off"}
    config = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update=fixed)})
    sized = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": 65})})
    limit = predicted_bytes(sized, CPU, 20)
    limit_memory(monkeypatch, limit)
    assert fitting_sequences(sized, CPU) == 16
    events = run(config, directory, max_iters=1)
    assert any(isinstance(event, Warned) and "64 per step as before" in event.message for event in events)
    plan = next(event for event in events if isinstance(event, RunPlanned))
    assert plan.memory_bytes <= limit
    assert plan.tokens_per_step == 64 * 32


def test_a_model_larger_than_the_machine_is_refused_before_it_is_built(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    limit = memory_limit_bytes()
    assert limit is not None
    width = 2 * int((limit / 16 / 12) ** 0.5)
    huge = tiny_run.model_copy(update={"model": ModelConfig(n_layer=2, n_head=2, n_embd=width, block_size=32)})
    with pytest.raises(MemoryShortageError):
        list(train(huge, directory))
    assert not directory.path.exists()


@pytest.mark.parametrize("name", ["tiny", "150M_1024", "500M_1024"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_what_is_named_as_fitting_fits(monkeypatch: pytest.MonkeyPatch, name: str, share: float) -> None:
    preset = load_preset(name)
    limit = int(predicted_bytes(preset, CPU, 1) * share)
    limit_memory(monkeypatch, limit)
    hint = memory_shortage(preset, CPU).hint
    training = preset.training.model_copy(update={"checkpoint_activations": True})
    checkpointed = predicted_bytes(preset.model_copy(update={"training": training}), CPU, 1)
    assert ("--checkpoint-activations needs" in hint, "which fits" in hint) == (True, checkpointed < limit)
    if checkpointed < limit:
        return
    if found := re.search(r"--block-size (\d+)", hint):
        model = preset.model.model_copy(update={"block_size": int(found[1])})
        assert predicted_bytes(preset.model_copy(update={"model": model}), CPU, 1) < limit
    elif found := re.search(r"--config-file (\S+)", hint):
        assert predicted_bytes(load_preset(found[1]), CPU, 1) < limit
    else:
        assert all(predicted_bytes(load_preset(other), CPU, 1) >= limit for other in ("tiny", "small"))
