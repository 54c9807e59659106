"""Beam search against all texts there are, against a plain search without a cache, and against transformers."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from generating import Letters, a_model, each_shape, log_softmax, penalized, plain_letters, read_plainly, samples
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer, decode
from mypt.core.tokens.char import CharTokenizer
from mypt.errors import UsageError
from mypt.events import Generated
from mypt.records.sampling import SamplingConfig
from twins import gpt2_twin

LENGTH_PENALTIES = [-1.0, 0.0, 0.5, 1.0, 2.0]
each_length_penalty = pytest.mark.parametrize("length_penalty", LENGTH_PENALTIES)
ENDING, ENDLESS = Letters(".abc"), plain_letters("abcd")


class Text(NamedTuple):
    score: float
    ids: tuple[int, ...]
    why: str


def all_texts(gpt: GPT, tokenizer: Tokenizer, prompt: Sequence[int], config: SamplingConfig) -> Iterator[Text]:
    """Every text of at most max_new_tokens, with its score."""

    def longer(ids: tuple[int, ...], total: float) -> Iterator[Text]:
        logs = log_softmax(read_plainly(gpt, [*prompt, *ids], len(prompt)))
        for token_id, log in enumerate(logs):
            score = (total + log) / (len(ids) + 1) ** config.length_penalty
            grown = (*ids, token_id)
            if token_id == tokenizer.end_of_text_id:
                yield Text(score, ids, "end of text")
            elif any(stop in decode(tokenizer, list(grown)) for stop in config.stop):
                yield Text(score, grown, "stop text")
            elif len(grown) == config.max_new_tokens:
                yield Text(score, grown, "length")
            else:
                yield from longer(grown, total + log)

    yield from longer((), 0.0)


def require_texts(found: Sequence[Generated], expected: Sequence[Text]) -> None:
    assert [(each.token_ids, each.stopped_by) for each in found] == [(text.ids, text.why) for text in expected]
    assert [each.score for each in found] == pytest.approx([text.score for text in expected], rel=1e-4)


@pytest.mark.parametrize("stop", [(), ("ab",), ("a", "bc")], ids=str)
@pytest.mark.parametrize("tokenizer", [ENDING, ENDLESS], ids=["ending", "endless"])
@each_length_penalty
def test_with_room_for_all_texts_the_best_are_found(
    length_penalty: float, tokenizer: CharTokenizer, stop: tuple[str, ...]
) -> None:
    gpt, prompt = a_model(4, size=0.3), "cab"
    config = SamplingConfig(beams=300, length_penalty=length_penalty, max_new_tokens=4, stop=stop)
    expected = sorted(all_texts(gpt, tokenizer, tokenizer.encode(prompt).tolist(), config), reverse=True)
    assert len({text.ids for text in expected}) == len(expected) <= 256
    found = samples(gpt, tokenizer, [prompt], **config.model_dump() | {"num_samples": 300})
    require_texts(found, expected)


def plain_search(gpt: GPT, tokenizer: Tokenizer, prompt: Sequence[int], config: SamplingConfig) -> list[Text]:
    """Keep the best few beginnings to the very end, reading each from its first token again."""
    going, ended = [(0.0, ())], list[Text]()
    for _ in range(config.max_new_tokens):
        grown: list[tuple[float, tuple[int, ...]]] = []
        for total, ids in going:
            logs = log_softmax(read_plainly(gpt, [*prompt, *ids], len(prompt))[: tokenizer.vocab_size])
            logs = penalized(logs, prompt, ids, config)
            grown += [(total + log, (*ids, token_id)) for token_id, log in enumerate(logs) if log > -math.inf]
        going = []
        for rank, (total, ids) in enumerate(sorted(grown, reverse=True)):
            why = "length" if len(ids) == config.max_new_tokens else ""
            why = "stop text" if any(stop in decode(tokenizer, list(ids)) for stop in config.stop) else why
            why = "end of text" if ids[-1] == tokenizer.end_of_text_id else why
            if not why:
                going.append((total, ids))
            elif rank < config.beams:
                kept = ids[:-1] if why == "end of text" else ids
                ended.append(Text(total / len(ids) ** config.length_penalty, kept, why))
        going = going[: config.beams]
    return sorted(ended, reverse=True)


@pytest.mark.parametrize("beams", [2, 5])
@each_length_penalty
def test_few_beams_find_what_a_plain_search_to_the_end_finds(length_penalty: float, beams: int) -> None:
    """So to end a search early has cost nothing."""
    gpt, letters, prompts = a_model(12, block_size=32), Letters(".abcdefghij"), ["", "abc", "jjjjjj", "a", "d"]
    config = SamplingConfig(beams=beams, length_penalty=length_penalty, max_new_tokens=8, num_samples=beams)
    for prompt in prompts:
        found = samples(gpt, letters, [prompt], **config.model_dump())
        require_texts(found, plain_search(gpt, letters, letters.encode(prompt).tolist() or [0], config)[:beams])


@pytest.mark.parametrize("length_penalty", [-1.0, -0.3])
def test_where_shorter_is_better_what_may_still_come_is_judged_by_its_length(length_penalty: float) -> None:
    gpt, letters = a_model(4, size=1.0), Letters(".abc")
    config = SamplingConfig(beams=3, length_penalty=length_penalty, max_new_tokens=12, num_samples=3)
    for prompt in map("".join, itertools.product("abc", repeat=3)):
        found = samples(gpt, letters, [prompt], **config.model_dump())
        require_texts(found, plain_search(gpt, letters, letters.encode(prompt).tolist(), config)[:3])


@pytest.mark.parametrize("stop", [("a", "b", "c", "d", "e", "f", "gh"), ("ab", "ba", "ih")], ids=str)
@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
def test_however_many_texts_a_stop_ends_as_many_beginnings_go_on(length_penalty: float, stop: tuple[str, ...]) -> None:
    gpt, letters = a_model(11, block_size=32, size=0.2), Letters(".abcdefghij")
    config = SamplingConfig(beams=2, length_penalty=length_penalty, max_new_tokens=8, num_samples=2, stop=stop)
    for prompt in "abcde":
        found = samples(gpt, letters, [prompt], **config.model_dump())
        expected = plain_search(gpt, letters, letters.encode(prompt).tolist(), config)[:2]
        require_texts(found, expected)
        for each in found:
            whole = decode(letters, list(each.token_ids))
            cut = min((whole.index(text) for text in stop if text in whole), default=len(whole))
            assert each.text == whole[:cut]


@each_shape
def test_past_the_window_it_is_still_the_plain_search(shape: dict[str, Any]) -> None:
    gpt, letters = a_model(6, **shape), Letters(".abcde")
    for prompt in ("a", "abcdeab", "edcbaedcba"):
        config = SamplingConfig(beams=3, length_penalty=0.0, max_new_tokens=20, num_samples=3, no_repeat_ngram=4)
        found = samples(gpt, letters, [prompt], **config.model_dump())
        require_texts(found, plain_search(gpt, letters, letters.encode(prompt).tolist(), config)[: len(found)])
        assert len(found) == 3


@pytest.mark.parametrize(
    "penalties",
    [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.5},
        {"frequency_penalty": 0.6, "presence_penalty": 0.3},
        {"frequency_penalty": -1.0},
        {"presence_penalty": -3.0},
        {"no_repeat_ngram": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
def test_penalties_are_part_of_the_score(length_penalty: float, penalties: dict[str, Any]) -> None:
    gpt, letters = a_model(6, block_size=32), Letters(".abcde")
    config = SamplingConfig.parse(
        {"beams": 2, "length_penalty": length_penalty, "max_new_tokens": 10, "num_samples": 2} | penalties, where="test"
    )
    for prompt in map("".join, itertools.product("abc", repeat=2)):
        found = samples(gpt, letters, [prompt], **config.model_dump())
        require_texts(found, plain_search(gpt, letters, letters.encode(prompt).tolist(), config)[:2])


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("beams", [2, 5])
@each_length_penalty
def test_it_finds_what_transformers_finds(length_penalty: float, beams: int, *, ends: bool) -> None:
    letters = Letters(".abcdefghijk") if ends else plain_letters(".abcdefghijk")
    gpt = a_model(12, bias=True, block_size=32)
    twin = gpt2_twin(gpt)
    for prompt in ("abc", "kk", "deadbeef"):
        asked = torch.tensor([letters.encode(prompt).tolist()])
        theirs = twin.generate(
            asked, attention_mask=torch.ones_like(asked), num_beams=beams, num_return_sequences=2, do_sample=False,
            early_stopping="never", length_penalty=length_penalty, max_new_tokens=15, pad_token_id=0,
            eos_token_id=0 if ends else None, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        found = samples(
            gpt, letters, [prompt], beams=beams, num_samples=2, length_penalty=length_penalty, max_new_tokens=15
        )
        for ours, ids, score in zip(found, theirs.sequences.tolist(), theirs.sequences_scores.tolist(), strict=True):
            new = ids[asked.shape[1] :]
            assert list(ours.token_ids) == (new[: new.index(0)] if ends and 0 in new else new)
            assert ours.score == pytest.approx(score, rel=1e-4)


def test_one_beam_is_greedy() -> None:
    gpt, letters = a_model(12), Letters(".abcdefghijk")
    plain = samples(gpt, letters, ["abc", "d"], temperature=0, max_new_tokens=20)
    narrow = samples(gpt, letters, ["abc", "d"], temperature=0, max_new_tokens=20, beams=1)
    assert [each.token_ids for each in plain] == [each.token_ids for each in narrow]
    assert [each.score for each in narrow] == [None, None]


def test_a_search_finds_no_worse_a_text_than_greed() -> None:
    gpt, letters, length = a_model(12, block_size=32), plain_letters("abcdefghijkl"), 15
    for prompt in ("abc", "h", "lkjlkj"):
        (greedy,) = samples(gpt, letters, [prompt], temperature=0, max_new_tokens=length, logprobs=0)
        (best,) = samples(gpt, letters, [prompt], beams=50, length_penalty=0, max_new_tokens=length)
        assert best.score is not None
        assert best.score >= sum(each.logprob for each in greedy.scores or ()) - 1e-5


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_padded_ids_are_never_part_of_a_beam(family: Any) -> None:
    found = samples(a_model(500, family, size=0.01), ENDING, ["ab"], beams=8, num_samples=8, max_new_tokens=6)
    assert len(found) == 8
    assert max(max(each.token_ids, default=0) for each in found) < 4


def test_where_there_are_fewer_texts_than_beams_all_are_given() -> None:
    found = samples(a_model(2), plain_letters("ab"), ["a"], beams=50, num_samples=50, max_new_tokens=3)
    assert sorted(each.text for each in found) == ["".join(letters) for letters in itertools.product("ab", repeat=3)]


@pytest.mark.parametrize("length_penalty", [-10.0, 10.0])
def test_the_strongest_length_penalties_are_numbers_still(length_penalty: float) -> None:
    found = samples(
        a_model(4), ENDLESS, ["a"], beams=2, length_penalty=length_penalty, max_new_tokens=1500, no_repeat_ngram=3
    )
    assert found[0].score is not None
    assert np.isfinite(found[0].score)
    with pytest.raises(UsageError, match="length_penalty"):
        SamplingConfig.parse({"beams": 2, "length_penalty": length_penalty * 1.01}, where="test")


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"typical_p": 0.5}, {"seed": 1},
     {"num_samples": 3}, {"logprobs": 1}, {"beams": 1, "length_penalty": 2}],
    ids=str,
)  # fmt: skip
def test_what_means_nothing_to_it_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="allowed"):
        SamplingConfig.parse({"beams": 2} | settings, where="test")
