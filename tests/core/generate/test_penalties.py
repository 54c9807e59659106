"""What a text holds changes the scores of its next token: as written out, and as transformers does it."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generating import CPU, Letters, a_model, distribution, holds_twice, penalized, plain_letters, read_plainly, samples
from mypt.core.generate.penalties import Penalties
from mypt.core.generate.stream import generate
from mypt.events import Generated
from mypt.records.sampling import SamplingConfig

VOCABULARY = 6
# Few ids, so that runs do come again.
HISTORIES = st.lists(st.integers(0, VOCABULARY - 1), max_size=20)
# Sixteenths are exact in float32.
SCORES = st.lists(st.integers(-160, 160).map(lambda number: number / 16), min_size=VOCABULARY, max_size=VOCABULARY)
REPETITION = st.sampled_from([0.5, 1.0, 1.3, 2.0])
STRENGTH = st.sampled_from([-1.5, 0.0, 0.25, 2.0])
LENGTHS = st.none() | st.integers(1, 4)
CONFIGS = st.builds(
    SamplingConfig,
    repetition_penalty=REPETITION,
    frequency_penalty=STRENGTH,
    presence_penalty=STRENGTH,
    no_repeat_ngram=LENGTHS,
)


def applied(scores: list[float], prompt: list[int], new: list[int], config: SamplingConfig) -> list[float]:
    logits, penalties = np.array(scores, dtype=np.float32), Penalties(config, prompt)
    for token_id in new:
        penalties.note(token_id)
    penalties.apply(logits)
    return logits.tolist()


@settings(max_examples=500, deadline=None)
@given(SCORES, HISTORIES, HISTORIES, CONFIGS)
def test_the_scores_are_the_written_out_ones(
    scores: list[float], prompt: list[int], new: list[int], config: SamplingConfig
) -> None:
    expected = penalized(np.array(scores), prompt, new, config)
    assert applied(scores, prompt, new, config) == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)


@given(SCORES, HISTORIES, HISTORIES, CONFIGS)
def test_nothing_is_changed_where_nothing_is_asked(
    scores: list[float], prompt: list[int], new: list[int], config: SamplingConfig
) -> None:
    plain = SamplingConfig()
    assert applied(scores, prompt, new, plain) == scores
    assert not Penalties.are_set(plain)
    is_plain = (config.repetition_penalty, config.frequency_penalty, config.presence_penalty) == (1, 0, 0)
    assert Penalties.are_set(config) != (is_plain and config.no_repeat_ngram is None)


@given(SCORES, HISTORIES, st.sampled_from([1.2, 3.0]))
def test_repetition_makes_what_is_there_less_likely_whatever_its_sign(
    scores: list[float], prompt: list[int], factor: float
) -> None:
    found = applied(scores, prompt, [], SamplingConfig(repetition_penalty=factor))
    for token_id, (before, after) in enumerate(zip(scores, found, strict=True)):
        assert after < before if token_id in prompt and before != 0 else after == before


@given(SCORES, HISTORIES, HISTORIES)
def test_frequency_and_presence_are_of_the_new_tokens_alone(
    scores: list[float], prompt: list[int], new: list[int]
) -> None:
    config = SamplingConfig(frequency_penalty=0.5, presence_penalty=0.25)
    found = applied(scores, prompt, new, config)
    assert found == [s - (0.5 * new.count(i) + 0.25 if i in new else 0) for i, s in enumerate(scores)]


def theirs(name: str, *arguments: Any, **keywords: Any) -> Any:
    return getattr(pytest.importorskip("transformers.generation.logits_process"), name)(*arguments, **keywords)


@pytest.mark.parametrize("seed", range(20))
def test_repetition_and_runs_are_what_transformers_makes_of_them(seed: int) -> None:
    chance = np.random.default_rng(seed)
    text, scores = chance.integers(0, 6, 18).tolist(), (chance.standard_normal(6) * 3).astype(np.float32)
    ids, logits = torch.tensor([text]), torch.from_numpy(scores)[None]
    cut = int(chance.integers(0, 19))
    for factor in (0.7, 1.5):
        expected = theirs("RepetitionPenaltyLogitsProcessor", factor)(ids, logits.clone())[0]
        found = applied(scores.tolist(), text[:cut], text[cut:], SamplingConfig(repetition_penalty=factor))
        assert found == pytest.approx(expected.tolist(), rel=1e-6)
    for length in (1, 2, 3, 4):
        expected = theirs("NoRepeatNGramLogitsProcessor", length)(ids, logits.clone())[0]
        found = applied(scores.tolist(), text[:cut], text[cut:], SamplingConfig(no_repeat_ngram=length))
        assert found == expected.tolist()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("vocab_size", [50, 2000])
def test_filters_leave_what_those_of_transformers_leave(seed: int, vocab_size: int) -> None:
    logits = torch.randn(3, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3
    warpers = [
        (theirs("TopKLogitsWarper", 30), {"top_k": 30}),
        (theirs("TopPLogitsWarper", 0.83), {"top_p": 0.83}),
        (theirs("MinPLogitsWarper", 0.013), {"min_p": 0.013}),
        (theirs("TypicalLogitsWarper", 0.61), {"typical_p": 0.61}),
    ]
    whole, all_settings = logits / 1.7, dict[str, float]()
    for warper, settings_of_one in warpers:
        require_equal(warper(torch.zeros(3, 1), logits.clone()), logits, {"temperature": 1.0} | settings_of_one)
        whole, all_settings = warper(torch.zeros(3, 1), whole), all_settings | settings_of_one
    require_equal(whole, logits, {"temperature": 1.7} | all_settings)


def require_equal(expected_scores: torch.Tensor, logits: torch.Tensor, asked: dict[str, float]) -> None:
    config = SamplingConfig.parse(asked, where="test")
    for row_V, expected_V in zip(logits.numpy(), expected_scores.double().softmax(dim=1).numpy(), strict=True):
        np.testing.assert_allclose(distribution(row_V, config), expected_V, rtol=1e-4, atol=1e-7)


ASKED = [
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 3},
    {"repetition_penalty": 1.8},
    {"repetition_penalty": 0.6},
    {"frequency_penalty": 0.7, "presence_penalty": 0.4},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": -0.5, "no_repeat_ngram": 3},
]
PROMPTS = ["abcab", "a", "cdefgh" * 3]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_the_likeliest_text_is_the_plain_one_under_penalties(asked: dict[str, Any]) -> None:
    """Also past the window, and in a batch."""
    gpt, letters = a_model(8), plain_letters("abcdefgh")
    config = SamplingConfig.parse({"temperature": 0, "max_new_tokens": 20, "batch_size": 2} | asked, where="test")
    found = [e for e in generate(gpt, letters, PROMPTS, config, CPU) if isinstance(e, Generated)]
    for sample, prompt in zip(found, PROMPTS, strict=True):
        ids, new = letters.encode(prompt).tolist(), list[int]()
        while len(new) < 20:
            scores = penalized(read_plainly(gpt, [*ids, *new], len(ids)), ids, new, config)
            if np.isneginf(scores).all():
                break
            new.append(int(scores.argmax()))
        assert list(sample.token_ids) == new
        assert sample.stopped_by == ("length" if len(new) == 20 else "no token left")


@pytest.mark.parametrize("more", [{"temperature": 1.5}, {"temperature": 0}, {"beams": 3}], ids=str)
@pytest.mark.parametrize("length", [1, 2, 3])
def test_no_run_is_written_twice(length: int, more: dict[str, Any]) -> None:
    letters = plain_letters("abcdefgh")
    prompts = ["abcdabc", "hg", "ab"]
    for sample in samples(a_model(8), letters, prompts, no_repeat_ngram=length, max_new_tokens=60, **more):
        start = letters.encode(sample.prompt).tolist()
        text = [*start, *sample.token_ids]
        assert not any(holds_twice(text[:end], length) for end in range(len(start) + 1, len(text) + 1))
        if sample.stopped_by == "no token left":
            assert all(holds_twice([*text, token_id], length) for token_id in range(8))
        else:
            assert sample.stopped_by == "length"


@pytest.mark.parametrize(
    "more",
    [{}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}, {"typical_p": 0.9}, {"beams": 3}],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_text_that_may_go_on_with_nothing_ends(batch_size: int, more: dict[str, Any]) -> None:
    prompts = ["abcd", "ab", "", "a"]
    found = samples(
        a_model(4), plain_letters("abcd"), prompts, no_repeat_ngram=1, batch_size=batch_size, logprobs=0, **more
    )
    assert [sample.prompt for sample in found] == prompts
    for sample in found:
        start = sample.prompt or "a"  # a text begins with some id
        assert sample.stopped_by == "no token left"
        assert sorted(start + sample.text) == list("abcd")
        assert len(sample.scores or ()) == len(sample.token_ids)


def test_end_of_text_is_a_token_as_others_are_and_may_be_forbidden() -> None:
    """An empty prompt begins with it."""
    found = samples(a_model(4), Letters(".abc"), [""], no_repeat_ngram=1, temperature=1.0)[0]
    assert (sorted(found.text), found.stopped_by) == (["a", "b", "c"], "no token left")
