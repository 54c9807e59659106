"""Prompts of a file, and what the model reads of each."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generating import CPU, a_model, plain_letters, samples
from mypt.core.generate.prompt import parse_prompts
from mypt.core.generate.stream import generate
from mypt.core.tokens.char import CharTokenizer
from mypt.errors import DataError
from mypt.events import Warned
from mypt.records.sampling import SamplingConfig

# No line break of Python's but \n ends a prompt.
LINE = st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1).filter(
    lambda line: line.strip() != "" and not line.lstrip().startswith("{")
)


@given(st.lists(LINE, min_size=1), st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]), st.booleans())
def test_each_line_that_is_not_blank_is_a_prompt_as_it_stands(lines: list[str], end: str, ends: bool) -> None:
    assert parse_prompts(end.join(lines) + (end if ends else ""), where="x") == lines


@given(st.lists(st.text(), min_size=1), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_json_lines_hold_any_text(prompts: list[str], end: str, is_ascii: bool) -> None:
    lines = [json.dumps({"id": 1, "prompt": prompt}, ensure_ascii=is_ascii) for prompt in prompts]
    assert parse_prompts(end.join(lines) + end, where="x") == prompts


@pytest.mark.parametrize(
    "line",
    ["plain", "{", '{"prompt": 1}', '{"text": "a"}', '["prompt"]', '"prompt"', "{" * 3, '{"prompt": ' + "[" * 10**5],
)
def test_a_line_that_is_no_such_object_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"^all\.jsonl, line 4: "):
        parse_prompts(f'{{"prompt": "a"}}\n\n{{"prompt": "b"}}\n{line}\n', where="all.jsonl")


@pytest.mark.parametrize(
    "first", ["{braces}", '{"a": 1}', "{", '{"prompt"', '["prompt"]', '{"prompt":' * 10**5, '{"a":' + "9" * 5000 + "}"]
)
def test_where_one_line_is_a_prompt_object_all_have_to_be(first: str) -> None:
    assert parse_prompts(f"{first}\nplain", where="x") == [first, "plain"]
    with pytest.raises(DataError, match=r"^x, line 1: "):
        parse_prompts(f'{first}\n{{"prompt": "b"}}', where="x")


@pytest.mark.parametrize("text", ["", "\n", " \n\t\r\n"])
def test_no_prompts_are_an_error(text: str) -> None:
    with pytest.raises(DataError, match=r"^empty: holds no prompts"):
        parse_prompts(text, where="empty")


def test_an_unknown_character_names_its_prompt_before_anything_is_written() -> None:
    gpt, letters = a_model(4), plain_letters("abcd")
    with pytest.raises(DataError, match=r"^prompt 2: .*'x'"):
        next(generate(gpt, letters, ["a", "bxc", "d"], SamplingConfig(), CPU))
    with pytest.raises(DataError, match=r"^the character vocabulary .*'x'"):
        next(generate(gpt, letters, ["bxc"], SamplingConfig(), CPU))
    skipped = samples(gpt, letters, ["a", "bxc"], unknown="skip", max_new_tokens=9)
    assert [each.token_ids for each in skipped] == [
        each.token_ids for each in samples(gpt, letters, ["a", "bc"], max_new_tokens=9)
    ]
    assert [each.prompt for each in skipped] == ["a", "bxc"]


@pytest.mark.parametrize(
    ("letters", "same"), [(plain_letters("ab\nc"), "\n"), (plain_letters("abcd"), "a")], ids=["line break", "first id"]
)
def test_an_empty_prompt_begins_as_a_line_or_with_the_first_id(letters: CharTokenizer, same: str) -> None:
    empty, other = samples(a_model(4), letters, ["", same], max_new_tokens=9)
    assert empty.prompt == ""
    assert empty.token_ids == other.token_ids


def test_the_warning_of_a_prompt_that_is_cut_names_it() -> None:
    gpt, letters = a_model(4), plain_letters("abcd")
    prompts = ["a" * 8, "b" * 9, "c", "d" * 30]
    events = list(generate(gpt, letters, prompts, SamplingConfig(max_new_tokens=3), CPU))
    told = [event.message for event in events if isinstance(event, Warned)]
    assert isinstance(events[0], Warned)
    assert told == ["prompt 2 has 9 tokens (and 1 more are too long); only the last 8 fit the model's window"]
    alone = next(generate(gpt, letters, ["b" * 9], SamplingConfig(beams=2, max_new_tokens=1), CPU))
    assert alone == Warned("the prompt has 9 tokens; only the last 8 fit the model's window")


def test_qa_wraps_each_prompt_and_tells_it_as_it_was_given() -> None:
    letters = plain_letters("abcdefghijklmnopqrstuvwxyzQA<>/? \n")
    gpt, wanted = a_model(34, block_size=64), {"max_new_tokens": 12, "temperature": 0}
    asked = samples(gpt, letters, ["why", "ab"], mode="qa", **wanted)
    wrapped = ["<Question> why </Question>\n<Answer> ", "<Question> ab </Question>\n<Answer> "]
    assert [each.prompt for each in asked] == ["why", "ab"]
    assert [each.token_ids for each in asked] == [each.token_ids for each in samples(gpt, letters, wrapped, **wanted)]


def test_no_prompt_at_all_writes_nothing() -> None:
    for config in (SamplingConfig(), SamplingConfig(beams=2)):
        assert not list(generate(a_model(4), plain_letters("abcd"), [], config, CPU))
