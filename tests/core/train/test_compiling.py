"""Compiled steps compute what the written ones do, and a run that compiles says so."""

import math
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import choose_device, deterministic
from mypt.core.model.attention import _written_out, attend, document_mask
from mypt.core.model.compiled import as_written, compile_blocks
from mypt.core.model.gpt import GPT
from mypt.core.train import compiling
from mypt.core.train.run import train
from mypt.errors import UsageError
from mypt.events import Event, Finished, Noted, RunPlanned, Warned
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig

NO_COMPILER = "/nowhere/g++"

LOADED_BY_A_RUN = """
import sys
from pathlib import Path
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.run import RunConfig
for _ in train(RunConfig.read(Path(sys.argv[1])), ModelDirectory(Path(sys.argv[2]), "model")):
    pass
print("torch._dynamo" in sys.modules, "torch._inductor" in sys.modules)
"""


@pytest.fixture(autouse=True)
def fresh_compiler() -> Generator[None]:
    """No test finds what another one compiled in this process."""
    torch._dynamo.reset()
    counters.clear()
    with ExitStack() as stack:
        stack.enter_context(deterministic())
        yield


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def messages(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Noted | Warned))


@pytest.mark.parametrize("masked", [False, True], ids=["causal", "by documents"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["float64", "bf16"])
def test_attention_written_out_equals_torchs_own(masked: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(2, 3, 17, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)]
    query, key, value = tensors
    mask = document_mask(torch.tensor([[0] * 5 + [1] * 12, [0] * 17])) if masked else None
    given = torch.randn(2, 3, 17, 8, generator=generator).to(dtype)
    found: list[list[torch.Tensor]] = []
    for function in (attend, _written_out):
        mixed = function(query, key, value, mask, 0.0)
        found.append([mixed.detach(), *torch.autograd.grad(mixed, tensors, given)])
    tolerance = 1e-12 if dtype == torch.float64 else 0.04
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_compiled_blocks_give_the_loss_and_gradients_of_written_ones_and_share_one_graph(
    dtype: torch.dtype, tolerance: float
) -> None:
    config = ModelConfig(
        family="modern", n_layer=3, n_head=2, n_kv_head=1, n_embd=32, block_size=16, vocab_size=40, dropout=0.0
    )
    torch.manual_seed(5)
    model = GPT(config).to(dtype)
    ids_BT = torch.randint(40, (2, 17))
    losses: list[float] = []
    gradients: list[list[torch.Tensor]] = []
    for compiles in (False, True):
        if compiles:
            compile_blocks(model)
        model.zero_grad()
        loss = model.loss(ids_BT[:, :-1], ids_BT[:, 1:])
        loss.backward()
        losses.append(loss.item())
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert math.isclose(*losses, rel_tol=tolerance)
    for written, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, written, atol=tolerance, rtol=100 * tolerance)
    assert counters["stats"]["unique_graphs"] == 1
    with torch.no_grad(), as_written():
        model.eval()(ids_BT[:1, :5])
    assert counters["stats"]["unique_graphs"] == 1
    # Passed again for their gradients, they give the same bits, by the same code.
    model.train()
    model.zero_grad()
    model.checkpoint_activations = True
    model.loss(ids_BT[:, :-1], ids_BT[:, 1:]).backward()
    again = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(*pair) for pair in zip(gradients[1], again, strict=True))
    assert counters["stats"]["unique_graphs"] == 1


def test_a_short_run_is_neither_compiled_nor_tried(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events = list(train(with_training(tiny_run, max_iters=2), directory))
    assert "compile" not in messages(events)
    assert directory.states()[0].training().versions["compiled"] == "no"


def test_a_run_that_is_not_compiled_loads_no_compiler(tiny_run: RunConfig, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for optimizer in ("adamw", "muon"):
        config.write_text(with_training(tiny_run, max_iters=2, optimizer=optimizer).as_json())
        done = subprocess.run(
            [sys.executable, "-c", LOADED_BY_A_RUN, str(config), str(tmp_path / optimizer)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert done.stdout.split() == ["False", "False"], optimizer


def test_a_long_run_tries_both_and_keeps_what_it_found(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_WORTH_S", 0)
    monkeypatch.setattr(compiling, "_WORTH_STEPS", 0)
    monkeypatch.setattr(compiling, "_WORTH_GAIN", 0)  # whatever the clock says
    without = with_training(tiny_run, kernels="off")
    events = list(train(with_training(without, max_iters=2), directory))
    assert "ms compiled and" in messages(events)
    assert directory.states()[0].training().versions["compiled"] == "yes"
    monkeypatch.undo()  # the run is short again, and goes on as it began
    events = list(train(with_training(without, max_iters=4), directory))
    assert isinstance(events[-1], Finished)
    assert "not with the bits" not in messages(events)
    assert directory.states()[0].training().versions["compiled"] == "yes"


def test_where_there_are_kernels_nothing_is_tried(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_WORTH_S", 0)
    monkeypatch.setattr(compiling, "_WORTH_STEPS", 0)
    monkeypatch.setattr(compiling, "_WORTH_GAIN", 0)
    events = list(train(with_training(tiny_run, max_iters=2), directory))
    has_kernels = next(event.kernels for event in events if isinstance(event, RunPlanned))
    assert has_kernels == ("ms compiled and" not in messages(events))
    assert directory.states()[0].training().versions["compiled"] == ("no" if has_kernels else "yes")


def test_without_a_compiler_a_run_that_must_not_compile_is_refused_and_any_other_goes_on(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    run = with_training(tiny_run, max_iters=2)
    list(train(with_training(run, compile="on"), directory))
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": (NO_COMPILER,)}), torch._inductor.utils.fresh_cache():
        with pytest.raises(UsageError, match="cannot compile") as refused:
            list(train(with_training(run, compile="on"), ModelDirectory(directory.path.parent, "other")))
        assert "C++ compiler" in str(refused.value.hint)
        torch._dynamo.reset()
        for said, steps in (("on", 4), ("auto", 6)):
            torch._dynamo.reset()
            told = messages(list(train(with_training(run, max_iters=steps, compile=said), directory)))
            assert ("steps are not compiled" in told) == (said == "on"), said
            assert ("compiled yes before and no now" in told) == (said == "on"), said


def test_precision_and_compilation_are_facts_of_the_device() -> None:
    device = choose_device("cpu", "fp32")
    assert not device.compiled
    assert replace(device, compiled=True) != device
