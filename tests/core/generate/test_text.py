"""Text leaves the stream when nothing later can change it, however its bytes arrive."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mypt.core.generate.text import TextStream

TEXT = st.text() | st.text(alphabet="ab<é☕𝄞 ", max_size=30)
CUTS = st.lists(st.integers(0, 130), max_size=40)
STOPS = st.lists(st.text(alphabet="ab<é☕", min_size=1, max_size=4), max_size=3)


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    # The bytes as tokens would bring them; some tokens bring none.
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def run(stream: TextStream, pieces: Sequence[bytes]) -> list[str]:
    # Everything given, piece by piece and at the end; a stop ends the feeding.
    given_texts = []
    for piece in pieces:
        given_texts.append(stream.feed(piece))
        if stream.stopped_by is not None:
            break
    return [*given_texts, stream.finish()]


@given(TEXT, CUTS)
def test_without_stops_the_text_comes_out_whole(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    assert "".join(run(stream, pieces_of(text.encode(), cuts))) == text
    assert stream.stopped_by is None


@given(TEXT, CUTS)
def test_without_stops_a_character_comes_with_its_last_byte_and_never_half(text: str, cuts: list[int]) -> None:
    stream, fed, shown = TextStream(), b"", ""
    for piece in pieces_of(text.encode(), cuts):
        fed += piece
        shown += stream.feed(piece)
        assert shown == fed.decode("utf-8", "ignore")


@given(st.binary(max_size=40), CUTS)
def test_broken_bytes_become_what_python_makes_of_them(data: bytes, cuts: list[int]) -> None:
    assert "".join(run(TextStream(), pieces_of(data, cuts))) == data.decode("utf-8", "replace")


def test_half_a_character_at_the_end_is_told_at_the_end() -> None:
    stream = TextStream()
    assert stream.feed("a☕".encode()[:-1]) == "a"
    assert stream.finish() == "\ufffd"


@settings(max_examples=300)
@given(TEXT, st.text(alphabet="ab<é☕", min_size=1, max_size=4), CUTS)
def test_a_stop_cuts_exactly_before_itself(text: str, stop: str, cuts: list[int]) -> None:
    stream = TextStream([stop])
    shown = "".join(run(stream, pieces_of(text.encode(), cuts)))
    assert shown == text.partition(stop)[0]
    assert stream.stopped_by == (stop if stop in text else None)


@settings(max_examples=500)
@given(
    st.text(alphabet="ab☕", max_size=9), st.lists(st.text(alphabet="ab☕", min_size=1, max_size=4), max_size=3), CUTS
)
@example("abc", ["abc", "b"], [2])
def test_the_text_does_not_depend_on_where_tokens_end(text: str, stops: list[str], cuts: list[int]) -> None:
    one, other = TextStream(stops), TextStream(stops)
    whole = "".join(run(one, [text.encode()]))
    assert "".join(run(other, pieces_of(text.encode(), cuts))) == whole
    assert other.stopped_by == one.stopped_by


@settings(max_examples=300)
@given(TEXT, STOPS, CUTS)
def test_no_stop_is_ever_shown_and_nothing_before_it_lost(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = TextStream(stops)
    shown = "".join(run(stream, pieces_of(text.encode(), cuts)))
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if stream.stopped_by is None:
        assert shown == text
    else:
        assert text[len(shown) :].startswith(stream.stopped_by)


@settings(max_examples=300)
@given(st.text(alphabet="ab<é☕", max_size=20), STOPS, CUTS)
def test_no_more_is_held_back_than_could_become_a_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    stream, fed, shown = TextStream(stops), b"", ""
    for piece in pieces_of(text.encode(), cuts):
        fed += piece
        shown += stream.feed(piece)
        if stream.stopped_by is not None:
            break
        held = fed.decode("utf-8", "ignore").removeprefix(shown)
        assert not held or any(stop.startswith(held) for stop in stops)


def test_text_held_back_is_given_at_the_end() -> None:
    stream = TextStream(["</Answer>"])
    assert stream.feed(b"yes </Ans") == "yes "
    assert stream.feed(b"x") == "</Ansx"
    assert stream.feed(b"e </") == "e "
    assert stream.finish() == "</"
    assert stream.stopped_by is None


@pytest.mark.parametrize("pieces", [["yes</Answer> no"], ["yes<", "/Answer", "> no"], list("yes</Answer> no")])
def test_after_a_stop_nothing_is_left_to_give(pieces: list[str]) -> None:
    stream = TextStream(["</Answer>"])
    given_texts = run(stream, [piece.encode() for piece in pieces])
    assert "".join(given_texts) == "yes"
    assert given_texts[-1] == ""
    assert stream.stopped_by == "</Answer>"
