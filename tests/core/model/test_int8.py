"""Weights in 8 bits: rounded as said, multiplied exactly, the same in any batch, and stored as they are computed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.checkpoint.quantize import quantize_model
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import choose_device
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.loaded import load_model
from mypt.core.model import int8
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import Int8Embedding, Int8Linear, quantize
from mypt.core.train.run import train
from mypt.errors import CheckpointError, UsageError
from mypt.events import Evaluated, Noted, Quantized
from mypt.records.budget import generation_memory
from mypt.records.model import FAMILIES, FamilyName, ModelConfig
from mypt.records.run import RunConfig
from support import stirred

CPU = choose_device("cpu")
SIZES = st.integers(1, 70)


def model(family: FamilyName) -> GPT:
    torch.manual_seed(2)
    config = ModelConfig(family=family, n_layer=2, n_head=2, n_embd=64, block_size=24, vocab_size=320)
    return stirred(GPT(config)).eval().requires_grad_(False)  # noqa: FBT003 - torch's own


def linear(rows: int, columns: int, *, seed: int = 0) -> tuple[Int8Linear, torch.Tensor]:
    torch.manual_seed(seed)
    matrix = torch.randn(rows, columns) * torch.rand(rows, 1).mul(8).exp()
    layer = Int8Linear(rows, columns, bias=None)
    layer.take(matrix)
    return layer, matrix


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(0, 99))
def test_every_weight_is_within_half_a_step_of_its_row(rows: int, columns: int, seed: int) -> None:
    layer, matrix = linear(rows, columns, seed=seed)
    steps = matrix.abs().amax(1, keepdim=True) / 127
    embedding = Int8Embedding(rows, columns)
    embedding.take(matrix)
    assert ((embedding(torch.arange(rows)) - matrix).abs() <= steps * 0.5001).all()
    assert torch.equal(embedding.weight, layer.weight)
    assert layer.weight.abs().amax(1).eq(127).all()


@settings(deadline=None)
@given(SIZES, st.integers(2, 70), st.integers(1, 20), st.integers(0, 99))
def test_a_product_is_the_exact_one_of_whole_numbers(rows: int, columns: int, count: int, seed: int) -> None:
    layer, _ = linear(rows, columns, seed=seed)
    x = torch.randn(count, columns)
    scales = np.abs(x.numpy()).max(1, keepdims=True) * np.float32(1 / 127)
    whole = np.rint(x.numpy() / scales).astype(np.int64) @ layer.weight.numpy().astype(np.int64).T
    expected = whole * layer.scale.numpy().astype(np.float64) * scales
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=3e-7)


@pytest.mark.parametrize("shape", [(3, 5, 64), (64,), (1, 1, 64)])
def test_any_leading_shape_goes_through(shape: tuple[int, ...]) -> None:
    layer, matrix = linear(10, 64)
    x = torch.randn(shape)
    assert layer(x).shape == (*shape[:-1], 10)
    assert F.cosine_similarity(layer(x), x @ matrix.T, dim=-1).min() > 0.99


def test_rows_of_zeros_give_zeros() -> None:
    layer = Int8Linear(3, 8, bias=None)
    layer.take(torch.zeros(3, 8))
    assert (layer.scale > 0).all()
    assert layer(torch.randn(2, 8)).eq(0).all()
    assert linear(3, 8)[0](torch.zeros(2, 8)).eq(0).all()


def test_a_single_column_is_multiplied_too() -> None:
    layer, matrix = linear(5, 1)
    x = torch.randn(4, 1)
    torch.testing.assert_close(layer(x), x @ matrix.T)


def test_where_processors_cut_sums_fp32_multiplies_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = linear(40, 64)
    x = torch.randn(5, 64)
    exact = layer(x)

    def never(_device: torch.device) -> bool:
        return False

    monkeypatch.setattr(int8, "_multiplies_exactly", never)
    assert torch.equal(layer(x), exact)


_ONE_PERCENT = """
import torch
from mypt.core.model.int8 import Int8Linear
torch.manual_seed(0)
matrix, x = torch.randn(40, 256), torch.rand(16, 256)
layer = Int8Linear(40, 256, bias=None)
layer.take(matrix)
for rows in (1, 2, 16):
    exact = x[:rows] @ matrix.T
    assert (layer(x[:rows]) - exact).norm() < 0.02 * exact.norm()
"""


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE", "DEFAULT"])
def test_products_are_near_on_processors_of_every_age(instructions: str) -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", _ONE_PERCENT], check=True, env=environment, timeout=120)


def test_sums_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 133,144"):
        Int8Linear(1, 133_145, bias=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_in_a_batch_has_the_bits_it_has_alone(family: FamilyName) -> None:
    gpt = model(family)
    quantize(gpt)
    texts = [list(range(n, 2 * n + 1)) for n in (1, 7, 7, 20, 23)]
    together = Decoder(gpt, CPU, len(texts), 40)
    alone = [Decoder(gpt, CPU, 1, 40) for _ in texts]
    for row, text in enumerate(texts):
        together.begin(row, text)
        alone[row].begin(0, text)
    for _ in range(12):  # past the window of the longest two
        logits_BV = together.step(texts)
        for row, text in enumerate(texts):
            assert np.array_equal(logits_BV[row], alone[row].step([text])[0])
            text.append(int(logits_BV[row].argmax()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_of_its_memory_is_its_size(family: FamilyName) -> None:
    gpt = model(family)
    quantize(gpt)
    size = sum(tensor.nbytes for tensor in gpt.state_dict().values())
    # Biases are counted as if they were in int8 too.
    slack = 0.05 if family == "mypt-v1" else 0
    assert generation_memory(gpt.config, int8=True).weights == pytest.approx(size, rel=slack)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantized_model_is_near_its_original(family: FamilyName) -> None:
    gpt = model(family)
    ids_BT = torch.randint(320, (4, 24))
    exact = gpt(ids_BT).log_softmax(-1)
    quantize(gpt)
    assert not [name for name, p in gpt.named_parameters() if p.dim() > 1 and "position" not in name]
    found = gpt(ids_BT).log_softmax(-1)
    assert 0 < F.kl_div(found, exact, log_target=True, reduction="batchmean") / 24 < 0.005


def test_stored_is_what_is_computed_at_load_and_a_quarter_of_the_size(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    wide = tiny_run.model_copy(update={"model": tiny_run.model.model_copy(update={"n_embd": 128})})
    list(train(wide, directory))
    target = ModelDirectory(directory.path.parent, "small")
    before = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
    *_, told = quantize_model(directory, target)
    assert isinstance(told, Quantized)
    assert told.size_bytes < told.source_bytes * 0.28
    assert before == {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
    target.states()[0].verify()
    stored, computed = load_model(target, "cpu", print), load_model(directory, "cpu", print, int8=True)
    for (name, mine), (_, other) in zip(
        stored.model.state_dict().items(), computed.model.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, other), name
    assert target.states()[0].parameters() == directory.states()[0].parameters()
    assert [type(event) for event in quantize_model(directory, target)] == [Noted]


def test_a_trained_model_loses_less_than_half_a_percent(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    from mypt.core.evaluate.verb import evaluate
    from mypt.events import Scored
    from mypt.records.evaluation import EvaluationConfig

    losses = [event.val_loss for event in train(tiny_run, directory) if isinstance(event, Evaluated)]
    assert losses[-1] < losses[0] - 0.1 if len(losses) > 1 else losses
    target = ModelDirectory(directory.path.parent, "small")
    list(quantize_model(directory, target))
    files = tuple(tiny_run.data.input_files)
    scored = [
        event.loss
        for event in evaluate(EvaluationConfig(input_files=files), [directory, target])
        if isinstance(event, Scored)
    ]
    assert scored[1] == pytest.approx(scored[0], rel=0.005)
    assert scored[1] != scored[0]


def test_a_model_that_was_trained_anew_is_quantized_anew(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    target = ModelDirectory(directory.path.parent, "small")
    list(train(tiny_run, directory))
    list(quantize_model(directory, target))
    other = tiny_run.model_copy(update={"training": tiny_run.training.model_copy(update={"seed": 99})})
    list(train(other, directory, fresh=True))
    *_, aside, told = quantize_model(directory, target)
    assert isinstance(aside, Noted)
    assert isinstance(told, Quantized)
    assert load_model(target, "cpu", print).snapshot.training.training.seed == 99
    assert len(list(directory.path.parent.glob("small*"))) == 2  # nothing is lost
    longer = other.model_copy(update={"training": other.training.model_copy(update={"max_iters": 80})})
    list(train(longer, directory))
    assert [type(event) for event in quantize_model(directory, target)] == [Quantized]


def test_a_damaged_state_is_made_again_and_another_model_is_no_earlier_state(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    list(train(tiny_run, directory))
    target = ModelDirectory(tmp_path, "eights")
    list(quantize_model(directory, target))
    weights = target.states()[0].path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert isinstance(list(quantize_model(directory, target))[-1], Quantized)
    target.states()[0].verify()
    other = ModelDirectory(tmp_path / "others", "other")
    longer = tiny_run.training.model_copy(update={"max_iters": 70})
    list(train(tiny_run.model_copy(update={"training": longer}), other))
    *_, aside, told = quantize_model(other, target)
    assert isinstance(aside, Noted)
    assert isinstance(told, Quantized)
    assert [state.step for state in target.states()] == [70]


def test_int8_is_not_trained_and_nothing_is_written_over(
    tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    list(train(tiny_run, directory))
    target = ModelDirectory(tmp_path, "eights")
    list(quantize_model(directory, target))
    with pytest.raises(CheckpointError, match="cannot be trained"):
        list(train(tiny_run, target))
    with pytest.raises(CheckpointError, match="cannot be trained"):
        list(train(tiny_run, ModelDirectory(tmp_path, "third"), init_from=target))
    with pytest.raises(CheckpointError, match="not made by mypt quantize"):
        list(quantize_model(directory, _copied(directory, tmp_path / "trained")))
    (tmp_path / "old").mkdir()
    (tmp_path / "old/old.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not made by mypt quantize"):
        list(quantize_model(directory, ModelDirectory(tmp_path, "old")))
    with pytest.raises(CheckpointError, match="in int8 already"):
        list(quantize_model(target, ModelDirectory(tmp_path, "fourth")))
    with pytest.raises(UsageError, match="over itself"):
        list(quantize_model(directory, directory))
    with pytest.raises(UsageError, match="not with weights in int8"):
        load_model(target, "cpu", print, precision="bf16")


def _copied(directory: ModelDirectory, path: Path) -> ModelDirectory:
    import shutil

    shutil.copytree(directory.path, path)
    return ModelDirectory(path.parent, path.name)
