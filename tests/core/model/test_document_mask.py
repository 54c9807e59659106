"""With the document mask, what is packed beside a document changes nothing in it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mypt.core.data.batches import FixedWindows
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.device import choose_device
from mypt.core.evaluate.loss import score
from mypt.core.model.gpt import GPT
from mypt.records.model import FAMILIES, ModelConfig
from support import stirred

VOCABULARY = 40
DOCUMENTS = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]] * 3)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> GPT:
    return built(request.param)


def built(family: str, **more: int) -> GPT:
    torch.manual_seed(1)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, "vocab_size": VOCABULARY}
    return stirred(GPT(ModelConfig.parse({"family": family, **sizes, **more}, where="test")))


def ids(seed: int) -> Tensor:
    return torch.randint(VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("document", [0, 1, 2])
def test_a_document_does_not_see_the_others(model: GPT, document: int) -> None:
    inside = DOCUMENTS.eq(document)
    one, other = ids(1), torch.where(inside, ids(1), ids(2))
    with torch.no_grad():
        first, second, unmasked = (
            model(one, documents_BT=DOCUMENTS), model(other, documents_BT=DOCUMENTS), model(other)
        )  # fmt: skip
    torch.testing.assert_close(first[inside], second[inside])
    assert document == 0 or not torch.allclose(unmasked[inside], second[inside])


def test_the_first_document_is_as_if_it_were_alone(model: GPT) -> None:
    with torch.no_grad():
        packed, alone = model(ids(1), documents_BT=DOCUMENTS), model(ids(1)[:, :5])
    torch.testing.assert_close(packed[:, :5], alone)


@pytest.mark.parametrize("document", [0, 1, 2])
def test_with_rotary_positions_every_document_is_as_if_it_were_alone(document: int) -> None:
    model = built("modern", n_kv_head=1)
    place = DOCUMENTS[0].eq(document)
    with torch.no_grad():
        packed, alone = model(ids(1), documents_BT=DOCUMENTS), model(ids(1)[:, place])
    torch.testing.assert_close(packed[:, place], alone, rtol=1e-4, atol=1e-5)


def test_one_document_is_no_mask_at_all(model: GPT) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(ids(1), documents_BT=torch.zeros(3, 12, dtype=torch.int64)), model(ids(1)))


def test_no_gradient_crosses_an_end(model: GPT) -> None:
    kept = list[Tensor]()

    def keep(_module: object, _given: object, embedded: Tensor) -> None:
        kept.append(embedded)

    model.token_embedding.register_forward_hook(keep)
    model(ids(1), documents_BT=DOCUMENTS)[:, 6].sum().backward(inputs=kept)
    # Position 6 is the second one of the second document.
    felt = kept[0].grad
    assert felt is not None
    assert felt.abs().sum((0, 2)).ne(0).tolist() == [False] * 5 + [True] * 2 + [False] * 5


def test_the_loss_is_the_mean_over_what_is_to_be_predicted(model: GPT) -> None:
    targets = ids(2)
    ends = torch.tensor([4, 7])
    targets[:, ends] = -100
    with torch.no_grad():
        losses = model.scores(ids(1), targets, DOCUMENTS).losses_N.view(3, 12)
        logits = model(ids(1), documents_BT=DOCUMENTS).double().log_softmax(-1)
        loss = model.loss(ids(1), targets, DOCUMENTS)
    counted = targets >= 0
    expected = -logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0][counted]
    assert (losses[:, ends] == 0).all()
    torch.testing.assert_close(losses[counted].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.double(), expected.mean(), rtol=1e-5, atol=1e-6)


def test_a_batch_with_nothing_to_predict_has_loss_zero(model: GPT) -> None:
    assert model.loss(ids(1), torch.full((3, 12), -100), DOCUMENTS).item() == 0


def test_evaluation_counts_what_is_inside_documents_only(model: GPT) -> None:
    chance = np.random.default_rng(3)
    ends = np.unique(chance.integers(1, 240, size=40))
    tokens = chance.integers(0, VOCABULARY, size=241, dtype=np.uint16)
    stream = TokenStream([MemoryShard(tokens, ends)])
    bytes_per_id = np.arange(VOCABULARY) % 4 + 1
    windows = FixedWindows(stream, 12, 100, seed=1, documents=True)
    assert len(windows) == 20
    result = score(model, windows, 7, choose_device("cpu"), bytes_per_id)
    # Every document piece of every window, alone in a batch; positions are those of the window.
    nats, predicted = 0.0, list[int]()
    for first in range(0, 240, 12):
        row = torch.from_numpy(tokens[first : first + 13].astype(np.int64))
        numbers = torch.tensor([sum(1 for end in ends if end <= first + place) for place in range(12)])
        with torch.no_grad():
            logits = model(row[None, :12], documents_BT=numbers[None])[0].double().log_softmax(-1)
        for place in range(12):
            if first + place + 1 not in ends:
                nats -= logits[place, row[place + 1]].item()
                predicted.append(int(row[place + 1]))
    assert result.loss == pytest.approx(nats / len(predicted), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / bytes_per_id[predicted].sum(), rel=1e-5)
