"""Texts written side by side are the texts written one by one, told in order, at the cost of their tokens."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generating import BLOCK_SIZE, CPU, Letters, a_model, each_shape, plain_letters, read_plainly, samples
from mypt.core.device import Device
from mypt.core.generate.decoder import Decoder
from mypt.core.generate.stream import generate
from mypt.core.model.attention import attend_cached
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import decode
from mypt.events import Generated, SampleStarted, Token, Warned
from mypt.records.model import FamilyName, ModelConfig
from mypt.records.sampling import SamplingConfig

LETTERS = Letters(".abcdefghijk")
# Shorter and longer than the window, one of them three times.
PROMPTS = ["ab", "", "kjihgfedcba", "ab", "abcdefgh", "ab"]


def note_reads(gpt: GPT) -> list[tuple[int, ...]]:
    """The shape of all ids that are read from now on."""
    read: list[tuple[int, ...]] = []

    def note(_module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        read.append(tuple(arguments[0].shape))

    gpt.token_embedding.register_forward_pre_hook(note)
    return read


@pytest.mark.parametrize(
    "chosen",
    [
        {"temperature": 0},
        {"temperature": 1.0},
        {"temperature": 1.0, "min_p": 0.05, "typical_p": 0.9, "repetition_penalty": 1.2, "no_repeat_ngram": 4},
    ],
    ids=str,
)
@each_shape
def test_texts_are_the_same_however_many_are_written_at_once(
    shape: dict[str, Any], chosen: dict[str, Any], device: Device
) -> None:
    gpt = a_model(12, **shape)
    wanted = {"max_new_tokens": 14, "num_samples": 2, "seed": 5} | chosen
    alone = [each for text in PROMPTS for each in samples(gpt, LETTERS, [text], device, **wanted, batch_size=1)]
    expected = [(each.prompt, each.sample, each.token_ids, each.text, each.stopped_by) for each in alone]
    assert max(len(each.token_ids) for each in alone) > BLOCK_SIZE
    for batch_size in (2, 3, 5):
        found = samples(gpt, LETTERS, PROMPTS, device, **wanted, batch_size=batch_size)
        assert [(each.prompt, each.sample, each.token_ids, each.text, each.stopped_by) for each in found] == expected
        assert [each.prompt_number for each in found] == [number for number in range(len(PROMPTS)) for _ in range(2)]


@pytest.mark.parametrize("more", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 100}, {"beams": 3}], ids=str)
def test_events_are_told_sample_by_sample(more: dict[str, Any]) -> None:
    config = SamplingConfig.parse({"num_samples": 3, "max_new_tokens": 12} | more, where="test")
    events = list(generate(a_model(12), LETTERS, PROMPTS[:3], config, CPU))
    told = [(e.prompt_number, e.sample, e) for e in events if isinstance(e, SampleStarted | Token | Generated)]
    assert isinstance(events[0], Warned), "before any sample"
    assert len(told) == len(events) - 1
    runs = [(key, [each[2] for each in run]) for key, run in groupby(told, key=lambda each: each[:2])]
    assert [key for key, _ in runs] == [(prompt, sample) for prompt in range(3) for sample in range(3)]
    for _, (first, *tokens, end) in runs:
        assert isinstance(first, SampleStarted)
        assert isinstance(end, Generated)
        assert all(isinstance(token, Token) for token in tokens)
        assert "".join(token.text for token in tokens if isinstance(token, Token)) == end.text


def test_the_first_sample_is_told_while_the_others_are_written() -> None:
    gpt = a_model(12)
    read = note_reads(gpt)
    events = generate(gpt, plain_letters("abcdefghijkl"), ["abc", "def"], SamplingConfig(max_new_tokens=50), CPU)
    assert isinstance(next(events), SampleStarted)
    assert isinstance(next(events), Token)
    assert read.count((2, 1)) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_a_free_row_takes_the_next_text_at_once(batch_size: int) -> None:
    gpt = a_model(12, block_size=64)
    read = note_reads(gpt)
    prompts = ["abcd", "bcde", "cdef", "defg", "efgh", "fghi", "ghij", "hijk"]
    found = samples(gpt, LETTERS, prompts, batch_size=batch_size, max_new_tokens=30, temperature=1.0)
    drawn = [len(each.token_ids) + (each.stopped_by == "end of text") for each in found]
    assert len(set(drawn)) > 3, "texts of one length would prove nothing"
    rows = [shape[0] for shape in read if shape[1] == 1]
    assert sum(rows) == sum(drawn), "no row is computed for nothing"
    assert rows == sorted(rows, reverse=True), "rows are free only when no text waits any more"
    assert rows[0] == batch_size
    assert [shape for shape in read if shape[1] > 1] == [(1, 3)] * len(prompts)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_prompt_that_is_still_there_is_not_read_again(batch_size: int) -> None:
    gpt, prompt = a_model(12, block_size=32), "abcdefghij"
    letters = plain_letters("abcdefghijkl")
    alone = [samples(gpt, letters, [prompt], max_new_tokens=6, num_samples=5, batch_size=1)[n] for n in range(5)]
    read = note_reads(gpt)
    found = samples(gpt, letters, [prompt], max_new_tokens=6, num_samples=5, batch_size=batch_size)
    assert [each.token_ids for each in found] == [each.token_ids for each in alone]
    assert [shape for shape in read if shape[1] > 1] == [(1, 9)]
    assert sum(rows for rows, length in read if length == 1) == 5 * 6


def test_every_prompt_and_sample_is_drawn_for_by_numbers_of_its_own() -> None:
    gpt, letters = a_model(12, size=0.01), plain_letters("abcdefghijkl")  # all ids are nearly as likely
    found = samples(gpt, letters, ["ab", "ba", "b", "ab"], num_samples=2, max_new_tokens=30, temperature=1.0)
    texts = [each.text for each in found]
    assert texts[:2] == texts[6:]
    assert len(set(texts)) == 6


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_stop_texts_cut_exactly_in_every_row(temperature: float) -> None:
    gpt, letters = a_model(12), plain_letters("abcdefghijkl")
    prompts, wanted = ["ab", "cdefghijkl", "c", "k", "lkj"], {"temperature": temperature, "max_new_tokens": 24}
    whole = [each.text for each in samples(gpt, letters, prompts, **wanted)]
    for start in (0, 3, 9, 21):
        stop = [text[start : start + 3] for text in whole[:2]]
        for each, text in zip(samples(gpt, letters, prompts, **wanted, stop=stop, batch_size=3), whole, strict=True):
            places = [text.index(one) for one in stop if one in text]
            assert each.text == text[: min(places, default=len(text))]
            assert each.stopped_by == ("stop text" if places else "length")
            assert decode(letters, list(each.token_ids)) == text[: min(places, default=21) + 3]


@each_shape
def test_logits_of_uneven_rows_are_those_of_each_text_read_plainly(shape: dict[str, Any], device: Device) -> None:
    """Also past the window, where each row refills in its own time; and for moved, dropped and new texts."""
    gpt, chance = a_model(12, **shape), np.random.default_rng(1)

    def some(length: int) -> list[int]:
        return chance.integers(0, 12, length).tolist()

    prompts = [some(length) for length in (1, 3, 7, 8, 9, 20)]
    texts, lengths = [list(prompt) for prompt in prompts], [len(prompt) for prompt in prompts]
    decoder = Decoder(gpt, device, 6, 60)
    for row, prompt in enumerate(prompts):
        decoder.begin(row, prompt)

    def require_logits() -> None:
        for row, logits in enumerate(decoder.step(texts)):
            expected = read_plainly(gpt, texts[row], lengths[row])
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
            texts[row].append(int(chance.integers(0, 12)))

    for _ in range(13):
        require_logits()
    decoder.move(5, 1)
    texts[1], lengths[1] = texts.pop(), lengths.pop()
    for _ in range(3):
        require_logits()
    texts[4], lengths[4] = some(5), 5
    decoder.begin(4, texts[4][:])
    for _ in range(12):
        require_logits()


@pytest.mark.parametrize("sources", [[0, 0, 0], [2, 1, 0], [1, 2], [2, 2, 0], [1]], ids=str)
@each_shape
def test_a_reordered_row_goes_on_as_the_text_it_became(
    shape: dict[str, Any], sources: list[int], device: Device
) -> None:
    gpt = a_model(12, **shape)
    texts, lengths = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11] * 12], [3, 7, 12]
    decoder = Decoder(gpt, device, 3, 60)
    for row, text in enumerate(texts):
        decoder.begin(row, tuple(text))
    decoder.step(texts)
    decoder.reorder(sources)
    texts, lengths = [[*texts[source]] for source in sources], [lengths[source] for source in sources]
    for step in range(12):
        for row, text in enumerate(texts):
            text.append((step * 5 + row) % 12)
        for row, logits in enumerate(decoder.step(texts)):
            expected = read_plainly(gpt, texts[row], lengths[row])
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_text_begun_after_rows_changed_places_is_read_as_it_is(device: Device) -> None:
    gpt, prompts = a_model(12), [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    decoder = Decoder(gpt, device, 3, 30)
    for row, prompt in enumerate(prompts):
        decoder.begin(row, prompt)
    decoder.reorder([1, 0])
    decoder.begin(2, prompts[0])
    texts = [prompts[1], prompts[0], prompts[0]]
    for text, logits in zip(texts, decoder.step(texts), strict=True):
        np.testing.assert_allclose(logits, read_plainly(gpt, text, 3), rtol=1e-4, atol=1e-5)


def test_a_row_whose_text_has_ended_still_holds_its_prompt(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt, prompts = a_model(12), [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 1]]
    decoder = Decoder(gpt, device, 4, 30)
    for row, prompt in enumerate(prompts):
        decoder.begin(row, prompt)
    decoder.step(prompts)
    texts = [[*prompt, 2] for prompt in prompts[:3]]
    decoder.step(texts)
    monkeypatch.setattr(decoder._reader, "read", pytest.fail)
    decoder.begin(3, prompts[3])
    texts = [*([*text, 3] for text in texts), prompts[3]]
    np.testing.assert_allclose(decoder.step(texts)[3], read_plainly(gpt, prompts[3], 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_past_the_window_a_token_costs_what_it_did_before(family: FamilyName) -> None:
    gpt, letters = a_model(12, family), plain_letters("abcdefghijkl")
    read = note_reads(gpt)
    costs: list[int] = []
    for count in (200, 400, 800):
        read.clear()
        samples(gpt, letters, ["abc"], max_new_tokens=count)
        costs.append(sum(rows * length for rows, length in read))
    # Each token is read as the newest one, and once more with the newer half of a window.
    assert all(count <= cost < 2 * count for count, cost in zip((200, 400, 800), costs, strict=True))


@pytest.mark.parametrize("ending", ["b", "bc"])
def test_what_was_held_back_is_told_at_the_end(ending: str) -> None:
    """The text ends as a stop text begins, that never comes."""
    gpt, letters = a_model(12), plain_letters("abcdefghijkl")
    config = SamplingConfig(max_new_tokens=12)
    (whole,) = samples(gpt, letters, ["ab"], **config.model_dump())
    stop = whole.text[-len(ending) :] + "!"
    told = list(generate(gpt, letters, ["ab"], config.model_copy(update={"stop": (stop,)}), CPU))
    assert "".join(event.text for event in told if isinstance(event, Token)) == whole.text
    assert [event.text for event in told if isinstance(event, Generated)] == [whole.text]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.sampled_from([(2, 2, 8), (4, 2, 16), (4, 1, 8), (6, 2, 64)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 1000),
)
def test_attention_gives_a_row_of_a_batch_the_same_bits_as_alone(
    lengths: Sequence[int], heads: tuple[int, int, int], dtype: torch.dtype, seed: int
) -> None:
    n_head, n_kv_head, width = heads
    config = ModelConfig(family="modern", n_layer=1, n_head=n_head, n_kv_head=n_kv_head, n_embd=n_head * width)
    generator = torch.Generator().manual_seed(seed)
    together = KeyValueCache(config, len(lengths), 41, torch.device("cpu"), dtype)
    together.memory.copy_(torch.randn(together.memory.shape, generator=generator))
    together.lengths[:] = lengths
    new = [torch.randn(len(lengths), count, 1, width, generator=generator).to(dtype) for count in heads[:2]]
    query, key, value = new[0], new[1], torch.randn(new[1].shape, generator=generator).to(dtype)
    memory = together.memory.clone()
    mixed = attend_cached(query, key, value, together.rows(0, len(lengths)), 0)
    for row, length in enumerate(lengths):
        alone = KeyValueCache(config, 1, 41, torch.device("cpu"), dtype)
        alone.memory[:, :, 0] = memory[:, :, row]
        alone.lengths[0] = length
        one = slice(row, row + 1)
        assert torch.equal(attend_cached(query[one], key[one], value[one], alone.rows(0, 1), 0), mixed[one])
        assert torch.equal(alone.memory[:, :, 0, :, : length + 1], together.memory[:, :, row, :, : length + 1])
