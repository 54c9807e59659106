"""Log-probabilities are the model's own: of a plain reading of the text, whatever else changes the choice."""

import math
from typing import Any

import pytest

from generating import Letters, a_model, each_shape, log_softmax, plain_letters, read_plainly, samples
from mypt.core.tokens.byte import ByteTokenizer

LETTERS = plain_letters("abcdefghijkl")
PROMPTS = ["ab", "kjihgfedcba", "c"]


@pytest.mark.parametrize(
    "chosen",
    [{}, {"temperature": 0}, {"top_k": 3, "repetition_penalty": 1.5, "no_repeat_ngram": 3, "frequency_penalty": 1.0}],
    ids=str,
)
@each_shape
def test_they_are_those_of_a_plain_reading(shape: dict[str, Any], chosen: dict[str, Any]) -> None:
    gpt = a_model(12, **shape)
    for each in samples(gpt, LETTERS, PROMPTS, logprobs=4, max_new_tokens=14, batch_size=2, **chosen):
        ids = LETTERS.encode(each.prompt).tolist()
        assert each.scores is not None
        assert each.likeliest is not None
        assert len(each.scores) == len(each.likeliest) == len(each.token_ids)
        for place, (token_id, score, likeliest) in enumerate(
            zip(each.token_ids, each.scores, each.likeliest, strict=True)
        ):
            logs = log_softmax(read_plainly(gpt, [*ids, *each.token_ids[:place]], len(ids)))
            assert (score.token_id, score.text) == (token_id, LETTERS.spec.chars[token_id])
            assert score.logprob == pytest.approx(logs[token_id], abs=1e-4)
            assert [one.token_id for one in likeliest] == (-logs).argsort()[:4].tolist()
            assert [one.logprob for one in likeliest] == pytest.approx(sorted(logs, reverse=True)[:4], abs=1e-4)
            if chosen == {"temperature": 0}:
                assert likeliest[0] == score


def test_there_are_as_many_as_were_asked_for() -> None:
    gpt = a_model(12)
    for count, listed in ((0, None), (1, 1), (12, 12), (1000, 12)):
        (each,) = samples(gpt, LETTERS, ["a"], logprobs=count, max_new_tokens=3)
        assert each.scores is not None
        assert len(each.scores) == 3
        assert [len(one) for one in each.likeliest or ()] == ([] if listed is None else [listed] * 3)
    (each,) = samples(gpt, LETTERS, ["a"], max_new_tokens=3)
    assert (each.scores, each.likeliest, each.score) == (None, None, None)


def test_to_ask_for_them_changes_no_text() -> None:
    gpt, wanted = a_model(12), {"repetition_penalty": 1.3, "no_repeat_ngram": 2, "max_new_tokens": 20}
    with_them = samples(gpt, LETTERS, PROMPTS, logprobs=3, **wanted)
    assert [each.text for each in with_them] == [each.text for each in samples(gpt, LETTERS, PROMPTS, **wanted)]


def test_padded_ids_have_no_share() -> None:
    """The vocabulary's probabilities sum to one without them."""
    (each,) = samples(a_model(500, size=0.01), LETTERS, ["a"], logprobs=12, max_new_tokens=2)
    for likeliest in each.likeliest or ():
        assert sum(math.exp(one.logprob) for one in likeliest) == pytest.approx(1)


@pytest.mark.parametrize("tokenizer", [LETTERS, Letters(".abcdefghijk")], ids=["endless", "ending"])
def test_those_of_a_beam_sum_to_its_score_where_length_counts_nothing(tokenizer: Any) -> None:
    gpt = a_model(12)
    found = samples(gpt, tokenizer, PROMPTS, beams=4, num_samples=4, length_penalty=0, logprobs=0, max_new_tokens=12)
    assert len(found) == 12
    for each in found:
        ids = tokenizer.encode(each.prompt).tolist()
        assert each.scores is not None
        assert each.score is not None
        assert [one.token_id for one in each.scores] == list(each.token_ids)
        total = sum(one.logprob for one in each.scores)
        if each.stopped_by == "end of text":
            total += log_softmax(read_plainly(gpt, [*ids, *each.token_ids], len(ids)))[0]
        assert each.score == pytest.approx(total, abs=1e-4)
    assert [each.score for each in found[:4]] == sorted((each.score or 0 for each in found[:4]), reverse=True)


def test_those_of_a_beam_under_penalties_are_the_models_own() -> None:
    gpt, letters = a_model(12), LETTERS
    (each,) = samples(gpt, letters, ["abc"], beams=3, repetition_penalty=2.0, logprobs=0, max_new_tokens=6)
    for place, score in enumerate(each.scores or ()):
        logs = log_softmax(read_plainly(gpt, [0, 1, 2, *each.token_ids[:place]], 3))
        assert score.logprob == pytest.approx(logs[score.token_id], abs=1e-4)


def test_the_text_of_a_token_that_is_part_of_a_character_is_shown_as_broken() -> None:
    (each,) = samples(a_model(257, size=0.05), ByteTokenizer(), ["é"], logprobs=257, max_new_tokens=1)
    assert each.likeliest is not None
    texts = {one.token_id: one.text for one in each.likeliest[0]}
    assert (texts[ord("a")], texts[0xC3], texts[256]) == ("a", "\ufffd", "")
