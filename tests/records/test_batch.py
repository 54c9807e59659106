"""Tokens become whole sequences, and sequences even pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.errors import UsageError
from mypt.records.batch import even_pieces, sequences_per_step


@pytest.mark.parametrize(
    ("text", "sequences"),
    [("524288", 2048), ("0.5M", None), ("64k", 250), ("512_000", 2000), ("256", 1), ("1.28e5", 500)],
)
def test_a_number_of_tokens_is_so_many_sequences_of_256(text: str, sequences: int | None) -> None:
    if sequences is None:
        with pytest.raises(UsageError, match=r"nearest: 499,968 \(=1,953 x 256\) or 500,224 \(=1,954 x 256\)"):
            sequences_per_step(text, 256)
    else:
        assert sequences_per_step(text, 256) == sequences


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "many", "20x", "1e99", "nan"])
def test_what_is_no_number_of_tokens_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="--global-batch-tokens") as caught:
        sequences_per_step(text, 7)
    assert "64k" in caught.value.message or "nearest" in caught.value.message


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_every_number_is_whole_or_names_the_two_nearest_that_are(tokens: int, block_size: int) -> None:
    if tokens % block_size == 0:
        assert sequences_per_step(str(tokens), block_size) == tokens // block_size
        return
    with pytest.raises(UsageError) as caught:
        sequences_per_step(str(tokens), block_size)
    below = tokens - tokens % block_size
    assert f"{below + block_size:,} (=" in caught.value.message
    assert (f" {below:,} (=" in caught.value.message) == (below > 0)


@pytest.mark.parametrize(
    ("sequences", "most", "piece"),
    [(48, 48, 48), (48, 47, 24), (48, 15, 12), (48, 1, 1), (31, 20, 16), (7, 6, 4), (7, 99, 7)],
)
def test_pieces_are_equal_where_they_can_be(sequences: int, most: int, piece: int) -> None:
    assert even_pieces(sequences, most) == piece


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_pieces_fit_are_not_far_too_small_and_the_last_is_the_only_smaller_one(sequences: int, most: int) -> None:
    piece, fitting = even_pieces(sequences, most), min(sequences, most)
    assert fitting / 2 <= piece <= fitting
    if sequences % piece:
        assert -(-sequences // piece) == -(-sequences // fitting), "no more pieces than it needs"
