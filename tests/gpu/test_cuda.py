"""The same laws on a CUDA device, in bf16: learning, exact resume, and models that travel."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.device import NARROW, choose_device
from mypt.core.evaluate.loss import Tensors
from mypt.core.generate.compiled import choose_reader
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.loaded import load_model
from mypt.core.model.attention import Mask, attend, attention_mask
from mypt.core.model.blockwise import block_mask
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import Int8Linear, quantize
from mypt.core.train.run import train
from mypt.core.train.update import Update
from mypt.events import Event, RunPlanned, StepDone
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig
from support import stirred

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),
]


MODEL = ModelConfig(n_layer=2, n_head=2, n_embd=64, block_size=32, dropout=0.1)
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bf16": ({}, {}),
    "fp32": ({}, {"precision": "fp32"}),
    "fp16": ({}, {"precision": "fp16"}),
    "muon": ({}, {"optimizer": "muon", "learning_rate": 0.04}),
    "modern, muon, compiled": (
        {"family": "modern", "dropout": 0.0},
        {"optimizer": "muon", "learning_rate": 0.04, "compile": "on"},
    ),
    "compiled with dropout": ({}, {"compile": "on"}),
    "compiled in fp32": ({"dropout": 0.0}, {"compile": "on", "precision": "fp32"}),
    "compiled in fp16": ({"dropout": 0.0}, {"compile": "on", "precision": "fp16"}),
    "compiled with documents": ({"dropout": 0.0}, {"compile": "on", "document_mask": True}),
    "documents": ({}, {"document_mask": True}),
    "pieces": ({}, {"micro_batch_size": 3}),
    "compiled in pieces": ({"dropout": 0.0}, {"micro_batch_size": 3, "compile": "on"}),
    "compiled, few key heads": ({"family": "modern", "n_kv_head": 1, "dropout": 0.0}, {"compile": "on"}),
    "compiled, activations checkpointed": ({"dropout": 0.0}, {"compile": "on", "checkpoint_activations": True}),
    "activations checkpointed": ({}, {"checkpoint_activations": True}),
}


@pytest.fixture(params=RUNS)
def cuda_run(tiny_run: RunConfig, request: pytest.FixtureRequest) -> RunConfig:
    model, training = RUNS[request.param]
    training = {"device": "cuda", "precision": "bf16", "learning_rate": 1e-2} | training
    update = {"model": MODEL.model_copy(update=model), "training": tiny_run.training.model_copy(update=training)}
    return tiny_run.model_copy(update=update)


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


def test_recorded_steps_give_the_bits_of_usual_ones(
    cuda_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = 0
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        nonlocal replays
        replays += 1
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    recorded = losses(list(train(cuda_run, ModelDirectory(tmp_path / "recorded", "model"))))
    is_recorded = not cuda_run.training.checkpoint_activations
    assert replays == (60 - 3 if is_recorded else 0)
    monkeypatch.setattr("mypt.core.train.recorded.USUAL_TIMES", 1000)
    usual = losses(list(train(cuda_run, ModelDirectory(tmp_path / "usual", "model"))))
    assert recorded == usual
    assert digests(tmp_path / "recorded") == digests(tmp_path / "usual")


def test_steps_that_are_not_to_be_recorded_are_not(
    cuda_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", pytest.fail)
    training = cuda_run.training.model_copy(update={"record_steps": False, "max_iters": 8})
    assert list(train(cuda_run.model_copy(update={"training": training}), ModelDirectory(tmp_path, "model")))


def test_a_recording_that_does_not_fit_is_left_and_steps_go_on(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_run.training.model_copy(update={"device": "cuda"})
    config = tiny_run.model_copy(update={"model": MODEL, "training": training})
    recorded = losses(list(train(config, ModelDirectory(tmp_path / "recorded", "model"))))
    backward = Update._backward

    def full(update: Update, batch: Tensors) -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            raise torch.OutOfMemoryError("out of memory, says this test")
        return backward(update, batch)

    monkeypatch.setattr(Update, "_backward", full)
    assert losses(list(train(config, ModelDirectory(tmp_path / "usual", "model")))) == recorded
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_a_run_gives_its_memory_back(cuda_run: RunConfig, tmp_path: Path) -> None:
    taken: list[int] = []
    for number in range(3):
        list(train(cuda_run, ModelDirectory(tmp_path / str(number), "model")))
        taken.append(torch.cuda.memory_allocated())
    assert taken[2] <= taken[1]


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("head_width", [16, 64, 128])
def test_attention_by_blocks_is_attention(documents: bool, head_width: int) -> None:
    torch.manual_seed(1)
    B, T, H = 2, 200, 3
    ids_BT = torch.zeros(B, T, dtype=torch.long, device="cuda")
    documents_BT = (torch.rand(B, T, device="cuda") < 0.03).cumsum(1) if documents else None
    parts = [torch.randn(B, H, T, head_width, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    blocks = block_mask(ids_BT, documents_BT)
    compiled = torch.compile(attend, fullgraph=True, dynamic=False, options={"deterministic": True})

    def results(work: Callable[..., Tensor], dtype: torch.dtype, mask: Mask) -> list[Tensor]:
        inputs = [part.to(dtype).requires_grad_() for part in parts[:3]]
        mixed = work(*inputs, mask)
        return [mixed, *torch.autograd.grad(mixed, inputs, parts[3].to(dtype))]

    found, again = (results(compiled, torch.bfloat16, blocks) for _ in range(2))
    expected = results(attend, torch.float64, attention_mask(ids_BT, documents_BT))
    for ours, twice, truth in zip(found, again, expected, strict=True):
        assert (ours.double() - truth).norm() < 0.01 * truth.norm()
        assert ours.equal(twice)


def test_training_learns_on_cuda(cuda_run: RunConfig, tmp_path: Path) -> None:
    events = list(train(cuda_run, ModelDirectory(tmp_path, "model")))
    found = [event.loss for event in events if isinstance(event, StepDone)]
    assert found[-1] < found[0] - 0.7
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


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16", "int8"])
def test_recorded_reading_gives_the_scores_of_usual_reading(kind: str) -> None:
    torch.manual_seed(1)
    gpt = stirred(GPT(MODEL)).eval().requires_grad_(False)  # noqa: FBT003 - torch's own
    if kind == "int8":
        quantize(gpt)
    gpt.to("cuda")
    if kind in NARROW:
        gpt.to(NARROW[kind])
    device = choose_device("cuda", "fp32")
    usual, recorded = (Decoder(gpt, each, 5, 80) for each in (device, choose_reader(device, "on")))
    lengths, vocab_size = [1, 2, 7, 31, 32], MODEL.vocab_size
    texts = [torch.randint(vocab_size, (length,)).tolist() for length in lengths]
    for decoder in (usual, recorded):
        for row, text in enumerate(texts):
            decoder.begin(row, text)
    for count in [5] * 40 + [3] * 3 + [1] * 3:  # past the window, and with rows that have ended
        expected, found = (decoder.step(texts[:count]) for decoder in (usual, recorded))
        allowed = 1e-3 if kind == "fp32" else 0.1
        assert abs(found - expected).max() <= allowed * expected.std()
        for text, scores in zip(texts, expected, strict=False):
            text.append(int(scores.argmax()))


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("shape", [(64, 64), (200, 768), (65, 64), (64, 60)])
def test_products_in_int8_are_those_of_a_cpu(rows: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    layer, x = Int8Linear(*shape, bias=None), torch.randn(rows, shape[1])
    layer.take(torch.randn(shape))
    torch.testing.assert_close(layer.to("cuda")(x.cuda()).cpu(), layer.to("cpu")(x), rtol=1e-6, atol=0)
