"""A run by our own kernels learns what one by torch learns, says so, and goes on as it began."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.device import Device, Precision
from mypt.core.model.gpt import GPT
from mypt.core.model.kernels import code
from mypt.core.model.layers import Block
from mypt.core.native.library import open_library, targets
from mypt.core.train.run import train
from mypt.core.train.update import Update
from mypt.errors import UsageError
from mypt.events import Evaluated, Event, Noted, RunPlanned, StepDone, Warned
from mypt.records.run import RunConfig
from support import Mypt

pytestmark = pytest.mark.skipif(not (targets() and shutil.which("gcc")), reason="no C compiler for this processor")


def changed(config: RunConfig, model: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model or {}),
            "training": config.training.model_copy(update=training),
        }
    )


def has_kernels(events: list[Event]) -> bool:
    return next(event.kernels for event in events if isinstance(event, RunPlanned))


def warnings_of(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Warned))


def notes_of(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Noted)]


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """From now on nothing is kept, and nothing can be compiled."""

    def take_it_away() -> None:
        monkeypatch.setenv("MYPT_CACHE", str(tmp_path / "empty"))
        monkeypatch.setenv("CC", "no-such-compiler")
        open_library.cache_clear()
        code.open_kernels.cache_clear()

    yield take_it_away
    open_library.cache_clear()
    code.open_kernels.cache_clear()


@pytest.mark.parametrize("in_documents", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_a_run_by_kernels_learns_what_one_by_torch_learns(
    tiny_run: RunConfig, tmp_path: Path, family: str, *, in_documents: bool
) -> None:
    losses: dict[str, list[float]] = {}
    for kernels in ("on", "off"):
        model = {"family": family, "dropout": 0.0}
        run = changed(tiny_run, model, kernels=kernels, document_mask=in_documents, max_iters=40)
        events = list(train(run, ModelDirectory(tmp_path, kernels)))
        assert has_kernels(events) == (kernels == "on")
        losses[kernels] = [event.loss for event in events if isinstance(event, StepDone)]
        losses[kernels] += [event.val_loss for event in events if isinstance(event, Evaluated)]
    assert losses["on"] == pytest.approx(losses["off"], abs=2e-3)
    assert losses["on"] != losses["off"]


def test_dropout_of_both_teaches_as_well(tiny_run: RunConfig, tmp_path: Path) -> None:
    ends: dict[str, float] = {}
    for kernels in ("on", "off"):
        for seed in range(8):  # what one run drops is chance
            run = changed(tiny_run, {"dropout": 0.3}, kernels=kernels, eval_iters=10, seed=seed)
            events = list(train(run, ModelDirectory(tmp_path, f"{kernels}{seed}")))
            last = [event.val_loss for event in events if isinstance(event, Evaluated)][-1]
            ends[kernels] = ends.get(kernels, 0.0) + last / 8
    assert ends["on"] == pytest.approx(ends["off"], abs=0.05)


def test_a_run_goes_on_as_it_began(tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path) -> None:
    assert has_kernels(list(train(changed(tiny_run, max_iters=2), directory)))
    assert directory.states()[0].training().versions["kernels"] == open_library(code.CODE).digest
    assert not warnings_of(list(train(changed(tiny_run, max_iters=4), directory)))
    other = ModelDirectory(tmp_path, "other")
    list(train(changed(tiny_run, max_iters=2, kernels="off"), other))
    events = list(train(changed(tiny_run, max_iters=4), other))
    assert (has_kernels(events), warnings_of(events)) == (False, "")
    events = list(train(changed(tiny_run, max_iters=6, kernels="on"), other))
    assert has_kernels(events)
    assert "kernels no before and" in warnings_of(events)


def test_a_run_of_before_there_were_kernels_goes_on_without(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    list(train(changed(tiny_run, max_iters=2, kernels="off"), directory))
    state = directory.states()[0]
    training = state.training()
    versions = {name: value for name, value in training.versions.items() if name != "kernels"}
    weights, moments = (load_tensors(state.path / name, torch.device("cpu")) for name in (MODEL_FILE, OPTIMIZER_FILE))
    older = training.model_copy(update={"versions": versions})
    directory.publish(Contents(state.config(), state.tokenizer(), older, weights, moments))
    events = list(train(changed(tiny_run, max_iters=4), directory))
    assert (has_kernels(events), warnings_of(events)) == (False, "")


def test_without_a_compiler_torch_computes(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path, no_compiler: Any
) -> None:
    list(train(changed(tiny_run, max_iters=2), directory))
    no_compiler()
    events = list(train(changed(tiny_run, max_iters=4), directory))
    assert not has_kernels(events)
    assert "before and no now" in warnings_of(events)
    assert "no-such-compiler. --kernels on takes them up again" in warnings_of(events)
    events = list(train(changed(tiny_run, max_iters=6, kernels="on"), directory))
    assert "steps are not computed by kernels: there is no C compiler no-such-compiler" in warnings_of(events)
    events = list(train(changed(tiny_run, max_iters=2), ModelDirectory(tmp_path, "new")))
    assert (has_kernels(events), warnings_of(events)) == (False, "")
    with pytest.raises(UsageError, match="--kernels on: there is no C compiler no-such-compiler"):
        list(train(changed(tiny_run, kernels="on"), ModelDirectory(tmp_path, "third")))


@pytest.mark.parametrize(("precision", "kernels"), [("fp32", True), ("bf16", True), ("fp16", False)])
def test_there_are_some_in_fp32_and_bf16(
    tiny_run: RunConfig, directory: ModelDirectory, precision: str, *, kernels: bool
) -> None:
    events = list(train(changed(tiny_run, precision=precision, max_iters=1), directory))
    assert has_kernels(events) == kernels


def test_kernels_of_another_compiler_are_told(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path, no_compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(train(changed(tiny_run, max_iters=2), directory))
    before = open_library(code.CODE).digest
    no_compiler()
    monkeypatch.setenv("CC", "gcc -fno-unroll-loops -ffp-contract=off")
    events = list(train(changed(tiny_run, max_iters=4), directory))
    now = open_library(code.CODE).digest
    assert f"kernels {before} before and {now} now" in warnings_of(events)
    assert "compiling kernels …" in notes_of(events)
    monkeypatch.setenv("CC", "false")
    monkeypatch.setenv("MYPT_CACHE", str(tmp_path / "other"))
    open_library.cache_clear()
    code.open_kernels.cache_clear()
    events = list(train(changed(tiny_run, max_iters=2), ModelDirectory(tmp_path, "new")))
    assert "there are no kernels: false failed: no message" in notes_of(events)


def test_compiled_steps_have_none(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    with pytest.raises(UsageError, match="--kernels on: compiled steps have none"):
        list(train(changed(tiny_run, kernels="on", compile="on"), directory))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_of_any_precision_are_computed_with_by_kernels(tiny_run: RunConfig, precision: Precision) -> None:
    update = Update(GPT(tiny_run.model), tiny_run.training, Device("cpu", None, precision, kernels=True), None)
    for block in update.working_model.blocks:
        assert isinstance(block, Block)
        assert block.attention.kernels is code.open_kernels()


def test_the_plan_tells_of_kernels(mypt: Mypt, text_file: Path) -> None:
    small = ["--n-layer", 1, "--n-head", 1, "--n-embd", 16, "--block-size", 16, "--max-iters", 1, "--device", "cpu"]
    for said, told in (("auto", True), ("off", False)):
        run = mypt("train", text_file, "--tokenization", "char", *small, "--kernels", said, "--fresh")
        assert run.returncode == 0, run.stderr
        assert ("own kernels" in run.stdout + run.stderr) == told
    run = mypt("train", text_file, "--kernels", "perhaps")
    assert run.returncode == 2
    assert "kernels" in run.stderr
