"""The order of the samples is a permutation for any size and key; the hash behind it is sound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypt.core.data.order import permute
from mypt.core.seeds import mix

SIZES = [*range(1, 70), 97, 127, 128, 129, 251, 255, 256, 257, 1000, 1021, 4096, 4097, 65_535, 65_536, 65_537, 100_003]


@pytest.mark.parametrize("size", SIZES)
def test_every_position_is_taken_exactly_once(size: int) -> None:
    for key in (0, 1, 2**63 - 1):
        order = permute(np.arange(size, dtype=np.uint64), size, key)
        assert order.dtype == np.uint64
        assert np.array_equal(np.sort(order), np.arange(size, dtype=np.uint64))


@given(st.integers(1, 2**40), st.integers(0, 2**63 - 1), st.data())
def test_huge_sizes_stay_inside_and_apart(size: int, key: int, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, size - 1), unique=True, min_size=1, max_size=20))
    order = permute(np.array(chosen, dtype=np.uint64), size, key)
    assert int(order.max()) < size
    assert len(set(order.tolist())) == len(chosen)


@settings(deadline=None)
@given(st.integers(2, 3000), st.integers(0, 2**63 - 1), st.data())
def test_a_block_of_the_order_is_the_order_of_the_block(size: int, key: int, data: st.DataObject) -> None:
    positions = np.arange(size, dtype=np.uint64)
    first = data.draw(st.integers(0, size - 1))
    assert np.array_equal(permute(positions[first:], size, key), permute(positions, size, key)[first:])
    assert np.array_equal(positions, np.arange(size, dtype=np.uint64))


def test_the_shape_of_the_positions_is_kept() -> None:
    positions = np.arange(60, dtype=np.uint64)
    assert np.array_equal(
        permute(positions.reshape(3, 4, 5), 60, key=5), permute(positions, 60, key=5).reshape(3, 4, 5)
    )
    assert permute(positions[:0], 60, key=5).shape == (0,)


@pytest.mark.parametrize("size", [20, 101, 4096, 100_003])
def test_different_keys_give_different_orders(size: int) -> None:
    orders = {permute(np.arange(min(size, 50), dtype=np.uint64), size, key).tobytes() for key in range(200)}
    assert len(orders) == 200


def test_orders_leave_few_samples_in_place_and_few_neighbours_together() -> None:
    size = 10_000
    for key in range(5):
        order = permute(np.arange(size, dtype=np.uint64), size, key).astype(np.int64)
        # A random order keeps one sample in place and two neighbours together, on average.
        assert (order == np.arange(size)).sum() < 10
        assert (np.abs(np.diff(order)) == 1).sum() < 15


def test_every_place_is_equally_likely_to_be_first() -> None:
    size, keys = 10, 3000
    firsts = [int(permute(np.zeros(1, dtype=np.uint64), size, mix(7, key))[0]) for key in range(keys)]
    counts = np.bincount(firsts, minlength=size)
    # Chi-square with 9 degrees of freedom: below 33.7 with probability 0.9999.
    assert ((counts - keys / size) ** 2 / (keys / size)).sum() < 33.7


# The hash.


def test_mix_is_splitmix64_less_its_lowest_bit() -> None:
    # The first output of the published generator for seed 0.
    assert mix(0) == 0xE220_A839_7B1D_CDAF >> 1


@given(st.lists(st.integers(-(2**70), 2**70), max_size=5))
def test_mix_gives_63_bits(numbers: list[int]) -> None:
    assert 0 <= mix(*numbers) < 2**63
    assert mix(*numbers) == mix(*numbers)


def test_mix_sees_every_number_and_their_order() -> None:
    hashes = {mix(a, b) for a in range(100) for b in range(100)}
    assert len(hashes) == 10_000
    assert len({mix(), mix(0), mix(0, 0), mix(0, 0, 0)}) == 4


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_mix_differs_from_seed_to_seed_and_step_to_step(seed: int, step: int) -> None:
    assert len({mix(seed, step), mix(seed + 1, step), mix(seed, step + 1), mix(step, seed, 0)}) == 4


def test_every_bit_of_mix_is_set_half_of_the_time() -> None:
    hashes = np.array([mix(number) for number in range(4000)], dtype=np.uint64)
    shares = [((hashes >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(63)]
    assert min(shares) > 0.45
    assert max(shares) < 0.55
