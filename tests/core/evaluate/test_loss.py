"""The validation loss is exact, repeatable and comparable across tokenizers."""

import math

import numpy as np
import pytest
import torch

from mypt.core.data.batches import FixedWindows
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.device import choose_device
from mypt.core.evaluate.loss import score
from mypt.core.model.gpt import GPT
from mypt.core.tokens.char import CharTokenizer
from mypt.records.model import ModelConfig
from mypt.records.tokenizer import CharSpec

CPU = choose_device("cpu")
CHARS = CharTokenizer(CharSpec(chars=tuple("aé€")))  # one, two and three bytes


def model() -> GPT:
    torch.manual_seed(0)
    return GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=10, vocab_size=3, dropout=0.5))


def stream() -> TokenStream:
    ids = np.random.default_rng(0).integers(0, 3, size=205, dtype=np.uint16)
    return TokenStream([MemoryShard(ids)])


def test_two_evaluations_of_the_same_weights_give_the_same_number() -> None:
    gpt = model()
    windows = [FixedWindows(stream(), 10, 7, seed=5) for _ in range(2)]
    first, second = (score(gpt, each, 3, CPU, CHARS.bytes_per_id) for each in windows)
    assert first == second


def test_the_batch_size_leaves_no_trace() -> None:
    windows = FixedWindows(stream(), 10, 100, seed=5)
    gpt = model()
    one, many = (score(gpt, windows, size, CPU, CHARS.bytes_per_id).loss for size in (1, 16))
    assert one == pytest.approx(many, rel=1e-6)


def test_over_all_windows_the_loss_is_the_plain_mean() -> None:
    gpt = model()
    windows = FixedWindows(stream(), 10, 1000, seed=5)
    assert len(windows) == 20
    ids = torch.from_numpy(stream().gather(np.array([0]), 201)[0])
    inputs, targets = ids[:-1].view(20, 10), ids[1:].view(20, 10)
    gpt.eval()
    with torch.no_grad():
        expected = gpt.loss(inputs, targets).item()
    assert score(gpt, windows, 4, CPU, CHARS.bytes_per_id).loss == pytest.approx(expected, rel=1e-6)


def test_bits_per_byte_divides_bits_by_the_bytes_of_the_predicted_text() -> None:
    windows = FixedWindows(stream(), 10, 1000, seed=5)
    result = score(model(), windows, 4, CPU, CHARS.bytes_per_id)
    targets = stream().gather(np.array([0]), 201)[0][1:]
    text = "".join("aé€"[token_id] for token_id in targets)
    bits = result.loss * 200 / math.log(2)
    assert result.bits_per_byte == pytest.approx(bits / len(text.encode("utf-8")), rel=1e-6)


def test_evaluation_ignores_dropout_and_leaves_the_mode_as_it_was() -> None:
    gpt = model().train()
    windows = FixedWindows(stream(), 10, 7, seed=5)
    training_mode = score(gpt, windows, 3, CPU, CHARS.bytes_per_id)
    assert gpt.training
    assert score(gpt.eval(), windows, 3, CPU, CHARS.bytes_per_id) == training_mode
    assert not gpt.training
