"""Sliding windows predict every token but the first once, with as much context as was promised."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.core.data.batches import NO_TARGET
from mypt.core.data.sliding import SlidingWindows
from mypt.core.data.stream import MemoryShard, TokenStream


def numbers(count: int, shard_tokens: int) -> TokenStream:
    """The tokens 0, 1, 2, …, each its own place, in shards."""
    ids = np.arange(count, dtype=np.uint16)
    return TokenStream([MemoryShard(ids[first : first + shard_tokens]) for first in range(0, count, shard_tokens)])


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    count, block_size = draw(st.integers(2, 300)), draw(st.integers(1, 60))
    return count, block_size, draw(st.integers(1, block_size))


@settings(deadline=None)
@given(shapes(), st.integers(1, 20), st.integers(1, 100))
def test_every_token_but_the_first_is_predicted_once_and_with_enough_before_it(
    shape: tuple[int, int, int], batch_size: int, shard_tokens: int
) -> None:
    count, block_size, stride = shape
    windows = SlidingWindows(numbers(count, shard_tokens), block_size, stride)
    predicted: list[int] = []
    for first in range(0, len(windows), batch_size):
        inputs_BT, targets_BT, documents_BT = windows.batch(first, batch_size)
        assert documents_BT is None
        assert inputs_BT.shape == targets_BT.shape
        assert inputs_BT.shape[1] <= block_size
        assert np.array_equal(inputs_BT[:, 0], stride * np.arange(first, first + len(inputs_BT)))
        assert (targets_BT[:, : windows.passed_over(first)] == NO_TARGET).all()
        for inputs_T, targets_T in zip(inputs_BT, targets_BT, strict=True):
            (places,) = np.nonzero(targets_T != NO_TARGET)
            assert places.size, "no window is in vain"
            # What the model sees before a target is the text before it, without a gap.
            assert np.array_equal(inputs_T[: places[-1] + 1], inputs_T[0] + np.arange(places[-1] + 1))
            assert np.array_equal(targets_T[places], inputs_T[0] + places + 1)
            assert inputs_T[0] == 0 or places[0] >= block_size - stride
            predicted += targets_T[places].tolist()
    assert predicted == list(range(1, count))
    assert windows.predicted == count - 1


def test_windows_beyond_the_last_are_none() -> None:
    windows = SlidingWindows(numbers(50, 50), 10, 5)
    assert len(windows.batch(len(windows) - 1, 100).inputs_BT) == 1
