"""Batches are a function of seed and position: every window once, the same however it is asked for."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mypt.core.data.batches import Batches, FixedWindows
from mypt.core.data.files import OpenFiles
from mypt.core.data.shards import FileShard
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.records.dataset import ShardInfo

SEEDS = st.integers(0, 2**63 - 1)


def tokens(count: int) -> NDArray[np.uint32]:
    # Tokens that tell their own place.
    return np.arange(count, dtype=np.uint32)


def stream(count: int, cuts: Sequence[int] = ()) -> TokenStream:
    return TokenStream([MemoryShard(part) for part in np.split(tokens(count), sorted(cuts))])


@st.composite
def texts(draw: st.DrawFn) -> tuple[int, int]:
    # Tokens of a text and a block size that fits it.
    block_size = draw(st.integers(1, 12))
    return draw(st.integers(block_size + 1, 150)), block_size


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of the order that small tests cross.
    monkeypatch.setattr("mypt.core.data.mixture._BLOCK_SAMPLES", 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


# Training windows.


@settings(deadline=None)
@given(texts(), SEEDS, st.integers(0, 5))
def test_every_window_comes_once_per_epoch(text: tuple[int, int], seed: int, epoch: int) -> None:
    count, block_size = text
    batches = Batches(stream(count), block_size, seed)
    per_epoch = batches.windows_per_epoch
    inputs, _, _ = batches.at(epoch * per_epoch, per_epoch)
    starts = np.sort(inputs[:, 0])
    # Side by side from the epoch's phase on: no token twice, none between them left out.
    assert 0 <= starts[0] < block_size
    assert np.array_equal(starts, starts[0] + block_size * np.arange(per_epoch))


@settings(deadline=None)
@given(texts(), SEEDS, st.integers(0, 10**12), st.integers(1, 40))
def test_targets_are_the_inputs_shifted_by_one(text: tuple[int, int], seed: int, position: int, count: int) -> None:
    length, block_size = text
    inputs, targets, _ = Batches(stream(length), block_size, seed).at(position, count)
    assert inputs.shape == targets.shape == (count, block_size)
    assert np.array_equal(targets, inputs + 1)
    assert np.array_equal(inputs, inputs[:, :1] + np.arange(block_size))
    assert targets.max() < length


@settings(deadline=None)
@given(texts())
def test_an_epoch_leaves_out_less_than_two_windows(text: tuple[int, int]) -> None:
    count, block_size = text
    read = Batches(stream(count), block_size, 1).windows_per_epoch * block_size
    assert count - 2 * block_size <= read < count


@settings(deadline=None)
@given(texts(), SEEDS, st.integers(0, 10**9), st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_the_order_does_not_depend_on_how_it_is_cut(
    text: tuple[int, int], seed: int, position: int, counts: list[int]
) -> None:
    count, block_size = text
    whole = Batches(stream(count), block_size, seed).at(position, sum(counts))
    one = Batches(stream(count), block_size, seed)
    firsts = [position + sum(counts[:number]) for number in range(len(counts))]
    cut = [one.at(first, many) for first, many in zip(firsts, counts, strict=True)]
    assert np.array_equal(np.concatenate([batch.inputs_BT for batch in cut]), whole.inputs_BT)
    assert np.array_equal(np.concatenate([batch.targets_BT for batch in cut]), whole.targets_BT)


@settings(deadline=None)
@given(texts(), SEEDS, st.lists(st.integers(0, 500), min_size=1, max_size=10))
def test_a_window_does_not_depend_on_what_was_asked_before(
    text: tuple[int, int], seed: int, positions: list[int]
) -> None:
    count, block_size = text
    used = Batches(stream(count), block_size, seed)
    for position in positions:
        fresh = Batches(stream(count), block_size, seed)
        assert np.array_equal(used.at(position, 1)[0], fresh.at(position, 1)[0])


@settings(deadline=None)
@given(texts(), SEEDS, st.integers(0, 300))
def test_the_order_does_not_depend_on_the_size_of_its_blocks(text: tuple[int, int], seed: int, position: int) -> None:
    count, block_size = text
    ours = Batches(stream(count), block_size, seed).at(position, 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mypt.core.data.mixture._BLOCK_SAMPLES", 61)
        other = Batches(stream(count), block_size, seed).at(position, 50)
    assert np.array_equal(ours[0], other[0])


def first_starts(seed: int, epochs: int) -> list[int]:
    batches = Batches(stream(2000), 50, seed)
    per_epoch = batches.windows_per_epoch
    return [int(batches.at(epoch * per_epoch, per_epoch)[0].min()) for epoch in range(epochs)]


def test_the_phase_changes_from_epoch_to_epoch_and_reaches_everywhere() -> None:
    phases = first_starts(seed=3, epochs=300)
    assert all(0 <= phase < 50 for phase in phases)
    assert len(set(phases)) > 45
    assert sum(one == other for one, other in pairwise(phases)) < 30


def test_the_order_changes_from_epoch_to_epoch_and_seed_to_seed() -> None:
    orders = set()
    for seed in range(4):
        batches = Batches(stream(2000), 50, seed)
        for epoch in range(4):
            starts = batches.at(epoch * batches.windows_per_epoch, batches.windows_per_epoch)[0][:, 0]
            orders.add(tuple((starts - starts.min()).tolist()))
    assert len(orders) == 16


@pytest.mark.parametrize("spare", [0, 1, 5])
def test_a_text_of_one_window_is_enough(spare: int) -> None:
    inputs, targets, _ = Batches(stream(9 + spare), 8, seed=1).at(0, 20)
    assert inputs.shape == (20, 8)
    assert targets.max() <= 8 + spare


# Shards.


@settings(deadline=None)
@given(texts(), SEEDS, st.lists(st.integers(0, 150), max_size=8))
def test_windows_across_shards_equal_those_of_one_shard(text: tuple[int, int], seed: int, cuts: list[int]) -> None:
    count, block_size = text
    one, many = stream(count), stream(count, [min(cut, count) for cut in cuts])
    assert len(one) == len(many) == count
    for batches in (Batches(one, block_size, seed), Batches(many, block_size, seed)):
        assert np.array_equal(batches.at(0, 30)[1], Batches(one, block_size, seed).at(0, 30)[1])


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 99), max_size=3), st.sampled_from(["uint16", "uint32"]), st.integers(0, 9))
def test_windows_from_files_equal_those_from_memory(
    folder: Path, seed: int, cuts: list[int], dtype: str, header_bytes: int
) -> None:
    shards: list[FileShard] = []
    files = OpenFiles(limit=2)
    for number, part in enumerate(np.split(tokens(100), sorted(cuts))):
        path = folder / f"{number}.bin"
        path.write_bytes(b"\xff" * header_bytes + part.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
        info = {"path": path.name, "byte_offset": header_bytes, "dtype": dtype, "tokens": part.size, "documents": 0}
        shards.append(FileShard(path, ShardInfo.parse(info | {"sha256": "0" * 64}, where="test"), files))
    from_files = Batches(TokenStream(shards), 7, seed).at(0, 40)
    from_memory = Batches(stream(100), 7, seed).at(0, 40)
    assert np.array_equal(from_files[0], from_memory[0])
    assert from_files[0].dtype == from_memory[0].dtype == np.int64


@settings(deadline=None)
@given(st.data())
def test_a_gathered_window_is_the_slice_of_the_text(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    cuts = data.draw(st.lists(st.integers(0, count), max_size=6))
    length = data.draw(st.integers(1, count))
    starts = data.draw(st.lists(st.integers(0, count - length), min_size=1, max_size=5))
    windows = stream(count, cuts).gather(np.array(starts, dtype=np.int64), length)
    assert windows.tolist() == [list(range(start, start + length)) for start in starts]


def test_an_empty_stream_has_no_tokens() -> None:
    assert len(TokenStream([])) == len(stream(0)) == 0


# Validation windows.


@settings(deadline=None)
@given(texts(), st.integers(1, 60), SEEDS)
def test_fixed_windows_are_distinct_in_order_and_the_same_twice(text: tuple[int, int], count: int, seed: int) -> None:
    length, block_size = text
    one, other = (FixedWindows(stream(length), block_size, count, seed) for _ in range(2))
    inputs, targets, _ = one.batch(0, len(one))
    assert len(one) == min(count, (length - 1) // block_size)
    assert np.array_equal(inputs, other.batch(0, count)[0])
    assert np.array_equal(inputs, one.batch(0, count)[0])
    assert np.array_equal(targets, inputs + 1)
    assert (np.diff(inputs[:, 0]) >= block_size).all()
    assert targets.max() < length


@settings(deadline=None)
@given(texts(), st.integers(1, 60), st.integers(1, 7))
def test_fixed_windows_do_not_depend_on_the_batch_size(text: tuple[int, int], count: int, batch_size: int) -> None:
    length, block_size = text
    windows = FixedWindows(stream(length), block_size, count, seed=5)
    batches = [windows.batch(first, batch_size)[0] for first in range(0, len(windows), batch_size)]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert np.array_equal(np.concatenate(batches), windows.batch(0, len(windows))[0])


def test_different_seeds_choose_different_fixed_windows() -> None:
    chosen = {tuple(FixedWindows(stream(5000), 10, 20, seed).batch(0, 20)[0][:, 0].tolist()) for seed in range(20)}
    assert len(chosen) == 20


def test_as_many_fixed_windows_as_there_are_cover_the_text() -> None:
    inputs, _, _ = FixedWindows(stream(101), 10, 1000, seed=1).batch(0, 1000)
    assert inputs.ravel().tolist() == list(range(100))
