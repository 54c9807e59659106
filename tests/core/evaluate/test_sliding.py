"""The score of a stream is that of one plain forward pass for every token."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.core.data.sliding import SlidingWindows
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.device import choose_device
from mypt.core.evaluate.loss import running_totals, score
from mypt.core.evaluate.score import Totals
from mypt.core.model.gpt import GPT
from mypt.core.tokens.byte import ByteTokenizer
from mypt.records.model import FamilyName, ModelConfig
from support import stirred
from twins import gpt2_twin

CPU = choose_device("cpu")
IDS = np.random.default_rng(0).integers(0, 8, size=71, dtype=np.uint16)
BYTES_PER_ID = np.arange(8) % 4


class Reference(NamedTuple):
    """What the words of the documentation come to, written out."""

    nats: float
    hits: int
    tokens: int


def config(family: FamilyName = "gpt2", *, bias: bool = False) -> ModelConfig:
    return ModelConfig(
        family=family, n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=8, dropout=0.5, bias=bias
    )


def model(family: FamilyName = "gpt2", *, bias: bool = False) -> GPT:
    torch.manual_seed(0)
    return stirred(GPT(config(family, bias=bias)))


def totals(gpt: GPT, ids: np.ndarray, stride: int, batch_size: int = 3) -> Totals:
    windows = SlidingWindows(TokenStream([MemoryShard(ids)]), gpt.config.block_size, stride)
    *_, last = running_totals(gpt, windows, batch_size, CPU, BYTES_PER_ID)
    return last


def written_out(gpt: GPT, ids: np.ndarray, stride: int) -> Reference:
    """For each token the first window that reaches it, cut off before it, and one forward pass."""
    tokens, block_size = torch.from_numpy(ids.astype(np.int64)), gpt.config.block_size
    nats, hits = 0.0, 0
    for place in range(1, len(tokens)):
        start = next(first for first in range(0, len(tokens), stride) if first + block_size >= place)
        with torch.no_grad():
            logits_V = gpt.eval()(tokens[None, start:place])[0, -1].double()
        nats -= float(logits_V.log_softmax(0)[tokens[place]])
        hits += int(logits_V.argmax() == tokens[place])
    return Reference(nats, hits, len(tokens) - 1)


@pytest.mark.parametrize("stride", [12, 7, 1])
@pytest.mark.parametrize("family", ["gpt2", "modern", "mypt-v1"])
def test_the_score_is_that_of_one_pass_for_every_token(family: FamilyName, stride: int) -> None:
    gpt = model(family)
    found, expected = totals(gpt, IDS, stride), written_out(gpt, IDS, stride)
    assert found.nats == pytest.approx(expected.nats, rel=1e-5)
    assert (found.hits, found.tokens) == (expected.hits, expected.tokens)
    assert 0 < found.hits < found.tokens


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 71), st.integers(1, 12), st.integers(1, 9))
def test_so_it_is_for_any_length_stride_and_batch(length: int, stride: int, batch_size: int) -> None:
    gpt, ids = model(), IDS[:length]
    found, expected = totals(gpt, ids, stride, batch_size), written_out(gpt, ids, stride)
    assert found.nats == pytest.approx(expected.nats, rel=1e-5)
    assert (found.hits, found.tokens) == (expected.hits, expected.tokens)
    assert found.text_bytes == BYTES_PER_ID[ids[1:]].sum()


def test_it_is_the_score_by_the_logits_of_transformers() -> None:
    gpt = model(bias=True)
    theirs = gpt2_twin(gpt)
    ids, stride, block_size = torch.from_numpy(IDS.astype(np.int64)), 5, 12
    nats, scored = 0.0, 0
    for start in range(0, len(ids), stride):
        window = ids[start : start + block_size + 1]
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(
                theirs(window[None, :-1]).logits[0], window[1:], reduction="none"
            )
        new = start + len(window) - 1 - scored
        nats, scored = nats + float(losses[-new:].double().sum()), scored + new
        if scored == len(ids) - 1:
            break
    assert totals(gpt, IDS, stride).nats == pytest.approx(nats, rel=1e-5)


def test_two_scores_are_the_same_bits_and_the_batch_leaves_no_trace_but_rounding() -> None:
    gpt = model()
    assert totals(gpt, IDS, 7) == totals(gpt, IDS, 7)
    for batch_size in (1, 2, 100):
        assert totals(gpt, IDS, 7, batch_size).nats == pytest.approx(totals(gpt, IDS, 7).nats, rel=1e-6)


def test_dropout_is_off_and_the_mode_is_left_as_it_was() -> None:
    gpt = model().train()
    in_training = totals(gpt, IDS, 12)
    assert gpt.training
    assert in_training == totals(gpt.eval(), IDS, 12)


def test_training_and_evaluation_score_with_one_function() -> None:
    """Windows side by side, taken by training's score, give the sums of `running_totals`."""
    windows = SlidingWindows(TokenStream([MemoryShard(IDS)]), 12, 12)
    whole = score(model(), windows, 3, CPU, BYTES_PER_ID)
    assert (whole.loss, whole.bits_per_byte) == (totals(model(), IDS, 12).loss, totals(model(), IDS, 12).bits_per_byte)


def test_the_figures_are_those_of_their_definitions() -> None:
    found = Totals(nats=30.0, hits=3, tokens=12, text_bytes=20)
    assert found.loss == 2.5
    assert found.accuracy == 0.25
    assert found.perplexity == math.exp(2.5)
    assert found.bits_per_byte == pytest.approx(30 / math.log(2) / 20)
    assert Totals(nats=1e6, tokens=1).perplexity is None


def test_bits_per_byte_of_a_model_that_knows_nothing_are_eight() -> None:
    """Each of the 256 bytes is as likely as the others: eight bits."""
    gpt = GPT(config().model_copy(update={"vocab_size": 256}))
    for parameter in gpt.parameters():
        torch.nn.init.zeros_(parameter)
    windows = SlidingWindows(TokenStream([MemoryShard(IDS)]), 12, 12)
    assert score(gpt, windows, 4, CPU, ByteTokenizer().bytes_per_id).bits_per_byte == pytest.approx(8)
