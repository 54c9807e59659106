"""The same laws on a CUDA device, in bf16: learning, exact resume, and models that travel."""

import hashlib
from pathlib import Path

import pytest
import torch

from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.generate.loaded import load_model
from mypt.core.train.run import train
from mypt.events import Event, RunPlanned, StepDone
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(params=[("bf16", "adamw", 1e-2), ("fp32", "adamw", 1e-2), ("bf16", "muon", 0.04)], ids=str)
def cuda_run(tiny_run: RunConfig, request: pytest.FixtureRequest) -> RunConfig:
    precision, optimizer, rate = request.param
    model = ModelConfig(n_layer=2, n_head=2, n_embd=64, block_size=32, dropout=0.1)
    settings = {"device": "cuda", "precision": precision, "optimizer": optimizer, "learning_rate": rate}
    training = tiny_run.training.model_copy(update=settings)
    return tiny_run.model_copy(update={"model": model, "training": training})


def losses(events: list[Event]) -> dict[int, str]:
    return {event.step: event.loss.hex() for event in events if isinstance(event, StepDone)}


def digests(root: Path) -> dict[str, str]:
    state = ModelDirectory(root, "model").states()[0]
    return {
        f"{file}:{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in (MODEL_FILE, OPTIMIZER_FILE)
        for name, tensor in load_tensors(state.path / file, torch.device("cpu")).items()
    }


def test_resumed_run_equals_unbroken_run_on_cuda(cuda_run: RunConfig, tmp_path: Path) -> None:
    unbroken = losses(list(train(cuda_run, ModelDirectory(tmp_path / "unbroken", "model"))))
    resumed = ModelDirectory(tmp_path / "resumed", "model")
    seen: list[Event] = []
    for event in train(cuda_run, resumed, stop=lambda: isinstance(seen[-1], StepDone) and seen[-1].step >= 30):
        seen.append(event)  # noqa: PERF402 - the stop reads the list while it grows
    stopped_at = max(losses(seen))
    assert stopped_at < 60
    rest = losses(list(train(cuda_run, resumed)))
    assert losses(seen) | rest == unbroken
    assert digests(tmp_path / "resumed") == digests(tmp_path / "unbroken")


def test_training_learns_on_cuda(cuda_run: RunConfig, tmp_path: Path) -> None:
    events = list(train(cuda_run, ModelDirectory(tmp_path, "model")))
    found = [event.loss for event in events if isinstance(event, StepDone)]
    assert found[-1] < found[0] - 0.8
    plan = next(event for event in events if isinstance(event, RunPlanned))
    assert plan.device.startswith("cuda: ")
    assert plan.precision == cuda_run.training.precision


def test_a_model_trained_on_cuda_writes_the_same_on_the_cpu(cuda_run: RunConfig, tmp_path: Path) -> None:
    directory = ModelDirectory(tmp_path, "model")
    list(train(cuda_run, directory))
    texts = [
        load_model(directory, device, pytest.fail).generate("The ", temperature=0, max_new_tokens=60)
        for device in ("cpu", "cuda")
    ]
    assert texts[0] == texts[1]
