"""bf16 is taken where it is faster, and ends where fp32 ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import Device, Precision, best_on_cuda, choose_device
from mypt.core.model.kernels.code import NO_KERNELS, open_kernels
from mypt.core.native.library import UnavailableError
from mypt.core.train.precision import with_fastest_precision
from mypt.core.train.run import train
from mypt.events import Evaluated, Event, Noted, RunPlanned
from mypt.records.model import FamilyName, ModelConfig
from mypt.records.run import RunConfig, TrainingConfig
from mypt.records.trial import Trial
from support import tale

CPU = choose_device("cpu")
MODEL = ModelConfig(family="modern", n_layer=2, n_head=2, n_embd=32, block_size=32, rope_base=1000)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No trial was made yet."""
    monkeypatch.setenv("MYPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settled(model: ModelConfig = MODEL) -> tuple[Device, list[Event]]:
    told: list[Event] = []
    events = with_fastest_precision(CPU, model)
    while True:
        try:
            told.append(next(events))
        except StopIteration as end:
            return end.value, told


def trials(cache: Path) -> list[Path]:
    return sorted((cache / "trials").glob("*"))


def test_a_model_of_which_no_block_fits_is_not_tried(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = ModelConfig(n_layer=1, n_head=2, n_embd=512, block_size=32)
    monkeypatch.setattr("mypt.core.train.precision.free_memory_bytes", lambda: 300 * 2**20)
    assert [event.message for event in settled(block)[1] if isinstance(event, Noted)]
    for huge in ({"n_embd": 4096}, {"n_embd": 65_536, "n_layer": 1000}):
        device, told = settled(block.model_copy(update=huge))
        assert (device.precision, told) == ("fp32", [])
    assert len(trials(cache)) == 1


def rewrite(path: Path, **changes: Any) -> None:
    Trial.read(path).model_copy(update=changes).write(path)


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_a_trial_is_made_once_told_in_one_line_and_decides(cache: Path, family: FamilyName) -> None:
    model = ModelConfig(family=family, n_layer=2, n_head=2, n_embd=32, block_size=32)
    device, told = settled(model)
    [path] = trials(cache)
    trial = Trial.read(path)
    assert device.precision == ("bf16" if trial.gain >= 1.2 else "fp32")
    [note] = told
    assert isinstance(note, Noted)
    assert note.message.startswith("bf16 ")
    assert note.message.endswith(f"here: {device.precision}")
    assert settled(model) == (device, [])
    assert trials(cache) == [path]


@pytest.mark.parametrize(("tried_s", "precision"), [(0.5, "bf16"), (0.8, "bf16"), (0.9, "fp32"), (3.0, "fp32")])
def test_bf16_is_for_where_it_is_clearly_faster(cache: Path, tried_s: float, precision: Precision) -> None:
    settled()
    rewrite(*trials(cache), usual_s=1.0, tried_s=tried_s)
    assert settled() == (Device("cpu", None, precision), [])


def test_another_width_is_another_trial_and_a_longer_model_is_not(cache: Path) -> None:
    settled()
    settled(MODEL.model_copy(update={"n_layer": 9, "vocab_size": 99}))
    assert len(trials(cache)) == 1
    settled(MODEL.model_copy(update={"n_embd": 16}))
    assert len(trials(cache)) == 2


def test_the_trial_is_of_kernels_where_the_steps_are(cache: Path) -> None:
    """Another library is another trial: bf16 may gain by it what it did not gain before."""
    settled()
    try:
        digest = open_kernels().calls.library.digest
    except UnavailableError:
        pytest.skip("there are no kernels")
    list(with_fastest_precision(replace(CPU, kernels=True), MODEL))
    assert {Trial.read(path).facts["kernels"] for path in trials(cache)} == {NO_KERNELS, digest}


def test_a_trial_leaves_no_trace_in_torch(cache: Path) -> None:
    def traces() -> list[Any]:
        chance, threads = torch.random.get_rng_state(), torch.get_num_threads()
        return [chance.tolist(), threads, torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()]

    before = traces()
    settled(MODEL.model_copy(update={"dropout": 0.1}))
    assert traces() == before


def test_what_is_asked_for_or_was_before_is_not_tried(
    tiny_run: RunConfig, directory: ModelDirectory, cache: Path
) -> None:
    for precision, steps, found in [("bf16", 2, "bf16"), ("fp16", 3, "fp16"), ("auto", 4, "fp16"), ("fp32", 5, "fp32")]:
        changes = {"precision": precision, "max_iters": steps}
        run = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update=changes)})
        plan = next(event for event in train(run, directory) if isinstance(event, RunPlanned))
        assert plan.precision == found
        list(train(run, directory))
    assert not trials(cache)


@pytest.mark.parametrize(
    ("capability", "has_bf16", "best"),
    [((8, 0), True, "bf16"), ((7, 5), False, "fp16"), ((7, 0), False, "fp16"), ((6, 1), False, "fp32")],
    ids=["A100", "T4", "V100", "P40"],
)
def test_a_gpu_takes_bf16_before_fp16_and_fp16_only_with_tensor_cores(
    capability: tuple[int, int], has_bf16: bool, best: str
) -> None:
    assert best_on_cuda(capability, has_bf16=has_bf16) == best


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"family": "gpt2"}, {"optimizer": "adamw", "learning_rate": 1e-3, "max_iters": 90}),
        ({"family": "modern", "rope_base": 1000}, {"optimizer": "muon", "learning_rate": 0.02, "max_iters": 40}),
    ],
    ids=["adamw", "muon"],
)
def test_bf16_ends_within_a_hundredth_of_fp32(
    tiny_run: RunConfig, tmp_path: Path, model: dict[str, Any], training: dict[str, Any], record_property: Any
) -> None:
    (tmp_path / "long.txt").write_text(tale(3000), encoding="utf-8")
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 128, "block_size": 32}
    recipe = {"batch_size": 4, "schedule": "linear", "min_lr_ratio": 0.0, "warmup_iters": 10}
    recipe |= {"eval_interval": 1000, "eval_iters": 40, "log_interval": 1000, "device": "cpu"}
    data = tiny_run.data.model_copy(update={"input_files": (str(tmp_path / "long.txt"),)})
    losses: dict[str, float] = {}
    for precision in ("fp32", "bf16"):
        told = TrainingConfig(**recipe, **training, precision=precision)  # pyrefly: ignore[bad-argument-type]
        config = RunConfig(model=ModelConfig(**sizes, **model), training=told, data=data)
        events = train(config, ModelDirectory(tmp_path, precision))
        losses[precision] = next(event.val_loss for event in events if isinstance(event, Evaluated))
    difference = losses["bf16"] - losses["fp32"]
    record_property("proven", f"bf16 less fp32, nats per token: {difference:+.4f} at {losses['fp32']:.3f}")
    assert losses["fp32"] < 1.7, "the loss of a model that has learned something"
    assert abs(difference) < 0.01
