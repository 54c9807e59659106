"""Blocks that are passed again in the backward pass: the same bits, and less that is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.model.gpt import GPT
from mypt.core.train.run import train
from mypt.events import StepDone
from mypt.records.memory import StepShape
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig

SHORT = {"max_iters": 4, "eval_interval": 4}


def trained(config: RunConfig, root: Path, steps: int | None = None, **changes: Any) -> tuple[list[float], list[bytes]]:
    """Losses of this process, and the files of weights and moments."""
    directory = ModelDirectory(root, "model")
    training = config.training.model_copy(update=SHORT | changes)
    losses = list[float]()
    events = train(config.model_copy(update={"training": training}), directory, stop=lambda: len(losses) == steps)
    losses += (event.loss for event in events if isinstance(event, StepDone))
    state = directory.states()[0].path
    return losses, [(state / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(
    "training",
    [{}, {"document_mask": True}, {"precision": "bf16"}, {"micro_batch_size": 3, "optimizer": "muon"}],
    ids=str,
)
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_a_run_has_the_same_bits_with_and_without(
    tiny_run: RunConfig, tmp_path: Path, family: str, training: dict[str, Any], dropout: float
) -> None:
    """Losses, and by weights and moments the gradients too; what is dropped is dropped again."""
    model = tiny_run.model.model_copy(update={"family": family, "dropout": dropout})
    config = tiny_run.model_copy(update={"model": model})
    without = trained(config, tmp_path / "without", **training)
    assert trained(config, tmp_path / "with", checkpoint_activations=True, **training) == without


def test_a_run_goes_on_with_it_bit_for_bit(tiny_run: RunConfig, tmp_path: Path) -> None:
    losses, files = trained(tiny_run, tmp_path / "unbroken", checkpoint_activations=True)
    first, _ = trained(tiny_run, tmp_path / "resumed", 2, checkpoint_activations=True)
    # Whether it is on may change between two starts: the bits do not depend on it.
    second, resumed = trained(tiny_run, tmp_path / "resumed", 1, checkpoint_activations=False)
    third, resumed = trained(tiny_run, tmp_path / "resumed", checkpoint_activations=True)
    assert ([*first, *second, *third], resumed) == (losses, files)


def test_an_evaluation_passes_every_block_once(tiny_run: RunConfig) -> None:
    model = GPT(tiny_run.model).eval()
    model.checkpoint_activations = True
    calls = list[int]()
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    ids = torch.zeros(1, 8, dtype=torch.long)
    model.scores(ids, ids)
    assert len(calls) == 1
    model.train().loss(ids, ids).backward()
    assert len(calls) == 3, "forward, and anew for the gradients"


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("n_layer", "n_embd", "batch_size"), [(2, 32, 16), (6, 64, 16)])
def test_the_formula_counts_what_is_kept(n_layer: int, n_embd: int, batch_size: int, dropout: float) -> None:
    """By the allocator's own books; each block's state of the generator, 5 kB, is lost among the rest."""
    config = ModelConfig(n_layer=n_layer, n_head=2, n_embd=n_embd, block_size=64, vocab_size=16, dropout=dropout)
    model = GPT(config).train()
    model.checkpoint_activations = True
    ids = torch.zeros(batch_size, 64, dtype=torch.long)
    model.hidden(ids)  # what libraries keep at their first use is no part of it
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        hidden = model.hidden(ids)
    events: Any = profiler.profiler.kineto_results.events()  # pyrefly: ignore[missing-attribute]
    kept = sum(event.nbytes() for event in events if event.name() == "[memory]")
    assert hidden.requires_grad
    shape = StepShape(model=config, batch_size=batch_size, checkpointed=True)
    assert kept == pytest.approx(shape.activation_bytes, rel=0.1)
