"""A mixture keeps its proportions exactly, draws every window, and depends on nothing but seed and position."""

import json
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mypt.core.data.batches import Batches, FixedWindows
from mypt.core.data.choices import read_choices, shares
from mypt.core.data.mixture import SMALLEST_SHARE, Mixture, apportion
from mypt.core.data.opened import open_dataset, open_datasets
from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.splits import Corpus
from mypt.core.data.stream import MemoryShard, Source, TokenStream
from mypt.errors import DataError, UsageError
from mypt.events import Event, Noted
from mypt.records.run import DataConfig

SEEDS = st.integers(0, 2**63 - 1)


@st.composite
def parts(draw: st.DrawFn) -> list[Fraction]:
    # Shares from one half down to the smallest.
    weights = draw(st.lists(st.integers(1, 10**5), min_size=1, max_size=6))
    found = [Fraction(weight, sum(weights)) for weight in weights]
    return found if min(found) >= SMALLEST_SHARE * 64 else [Fraction(1)]


def mixed(tokens: Sequence[int], weights: Sequence[int]) -> TokenStream:
    # Tokens that tell their own place.
    total, ids = sum(weights), np.arange(sum(tokens), dtype=np.uint32)
    firsts = np.cumsum([0, *tokens]).tolist()
    sources = [Source(f"s{n}", firsts[n], count, Fraction(weights[n], total)) for n, count in enumerate(tokens)]
    return TokenStream([MemoryShard(part) for part in np.split(ids, firsts[1:-1])], sources)


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[TokenStream, int]:
    # A mixed stream and a block size that fits each of its sources.
    block_size, number = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    tokens = draw(st.lists(st.integers(block_size + 1, 90), min_size=number, max_size=number))
    weights = draw(st.lists(st.integers(1, 20), min_size=number, max_size=number))
    return mixed(tokens, weights), block_size


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mypt.core.data.mixture._BLOCK_SAMPLES", 16)


# Quotas.


@given(st.integers(0, 10**12), parts())
def test_apportioned_counts_add_up_and_are_the_exact_shares_rounded(count: int, shares: list[Fraction]) -> None:
    counts = apportion(count, shares)
    assert sum(counts) == count
    assert all(abs(got - count * share) < 1 for got, share in zip(counts, shares, strict=True))


@settings(deadline=None)
@given(parts(), SEEDS, st.integers(0, 10**9))
def test_no_total_ever_falls_or_strays(shares: list[Fraction], seed: int, block: int) -> None:
    mixture = Mixture(shares, seed)
    before, after = mixture.totals(block), mixture.totals(block + 1)
    assert sum(after) - sum(before) == mixture.block_samples
    assert all(new >= old for old, new in zip(before, after, strict=True))
    exact = [share * mixture.block_samples * (block + 1) for share in shares]
    assert all(abs(got - want) < 1 for got, want in zip(after, exact, strict=True))


@settings(deadline=None, max_examples=50)
@given(parts(), SEEDS, st.integers(0, 10**6))
def test_a_block_holds_its_quotas_and_each_source_goes_on_where_it_was(
    shares: list[Fraction], seed: int, block: int
) -> None:
    mixture = Mixture(shares, seed)
    sources, places = mixture.block(block)
    for source, (first, end) in enumerate(zip(mixture.totals(block), mixture.totals(block + 1), strict=True)):
        assert places[sources == source].tolist() == list(range(first, end))


def test_a_source_of_one_in_a_thousand_makes_blocks_long_enough_for_it() -> None:
    assert Mixture([Fraction(1)], 1).block_samples == 16
    assert Mixture([Fraction(1, 16), Fraction(15, 16)], 1).block_samples == 16
    assert Mixture([Fraction(1, 1000), Fraction(999, 1000)], 1).block_samples == 1024


def test_blocks_are_shuffled_anew_and_by_the_seed() -> None:
    halves = [Fraction(1, 2)] * 2
    orders = {tuple(Mixture(halves, seed).block(block)[0].tolist()) for seed in range(4) for block in range(4)}
    assert len(orders) == 16


# Batches.


@settings(deadline=None)
@given(mixtures(), SEEDS, st.integers(0, 10**6), st.integers(1, 40))
def test_no_window_crosses_from_source_to_source(
    mixture: tuple[TokenStream, int], seed: int, position: int, count: int
) -> None:
    stream, block_size = mixture
    inputs, targets, _ = Batches(stream, block_size, seed).at(position, count)
    assert np.array_equal(targets, inputs + 1)
    homes = np.searchsorted([source.first for source in stream.sources], inputs, side="right")
    assert (homes == homes[:, :1]).all()
    assert np.array_equal(np.searchsorted([s.first for s in stream.sources], targets[:, -1], side="right"), homes[:, 0])


@settings(deadline=None, max_examples=30)
@given(mixtures(), SEEDS)
def test_every_source_gives_each_of_its_windows_once_per_own_epoch(mixture: tuple[TokenStream, int], seed: int) -> None:
    stream, block_size = mixture
    batches = Batches(stream, block_size, seed)
    firsts = batches.at(0, 600).inputs_BT[:, 0]
    for source in stream.sources:
        per_epoch = max(1, source.tokens // block_size - 1)
        own = firsts[(firsts >= source.first) & (firsts < source.first + source.tokens)] - source.first
        for epoch in range(min(3, len(own) // per_epoch)):
            starts = np.sort(own[epoch * per_epoch : (epoch + 1) * per_epoch])
            assert np.array_equal(starts, starts[0] + block_size * np.arange(per_epoch))


@settings(deadline=None)
@given(mixtures(), SEEDS, st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1, 2, 3, 8]), st.integers(1, 3))
def test_any_ranks_and_micro_batches_take_the_same_samples(
    mixture: tuple[TokenStream, int], seed: int, position: int, per_slice: int, ranks: int, micro_steps: int
) -> None:
    stream, block_size = mixture
    size = per_slice * ranks * micro_steps
    whole = Batches(stream, block_size, seed).at(position, 2 * size).inputs_BT
    # Each rank has batches of its own, and takes its slice of each micro-step's slice of each step.
    own = [Batches(stream, block_size, seed) for _ in range(ranks)]
    taken: list[NDArray[np.int64]] = []
    for first in range(position, position + 2 * size, per_slice * ranks):
        taken += [own[rank].at(first + rank * per_slice, per_slice).inputs_BT for rank in range(ranks)]
    assert np.array_equal(np.concatenate(taken), whole)


@settings(deadline=None)
@given(mixtures(), SEEDS, st.integers(0, 10**6), st.integers(1, 60))
def test_a_mixture_can_be_entered_anywhere(
    mixture: tuple[TokenStream, int], seed: int, position: int, passed: int
) -> None:
    stream, block_size = mixture
    one = Batches(stream, block_size, seed).at(position, passed + 5).inputs_BT[passed:]
    assert np.array_equal(Batches(stream, block_size, seed).at(position + passed, 5).inputs_BT, one)


@settings(deadline=None)
@given(st.integers(20, 200), SEEDS, st.integers(0, 500))
def test_one_source_is_the_plain_text(count: int, seed: int, position: int) -> None:
    plain = TokenStream([MemoryShard(np.arange(count, dtype=np.uint32))])
    assert np.array_equal(
        Batches(mixed([count], [3]), 7, seed).at(position, 9)[0], Batches(plain, 7, seed).at(position, 9)[0]
    )


def test_weights_hold_whatever_the_sizes() -> None:
    firsts = Batches(mixed([60, 4000], [7, 3]), 8, seed=2).at(0, 1600).inputs_BT[:, 0]
    assert (firsts < 60).sum() == 0.7 * 1600


def test_coverage_counts_no_token_twice() -> None:
    batches = Batches(mixed([80, 800], [1, 1]), 8, seed=2)
    assert batches.coverage(0) == 0
    assert batches.coverage(20) == pytest.approx((80 + 80) / 880)
    assert batches.coverage(10**6) == 1
    assert batches.windows_per_epoch == 9 + 99


def test_validation_windows_follow_the_shares() -> None:
    stream = mixed([1000, 1000, 50], [6, 3, 1])
    firsts = FixedWindows(stream, 9, 50, seed=4).batch(0, 50).inputs_BT[:, 0]
    assert [(firsts < 1000).sum(), ((firsts >= 1000) & (firsts < 2000)).sum(), (firsts >= 2000).sum()] == [30, 15, 5]


# What the command line says.


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, repeats in (("a", 100), ("b", 300)):
        (tmp_path / f"{name}.txt").write_text(f"this is text {name}. " * repeats, encoding="utf-8")
        config = DataConfig(input_files=(str(tmp_path / f"{name}.txt"),), tokenization="byte")
        list(prepare_dataset(config, tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(*texts: str) -> tuple[list[Event], Corpus]:
    def collect(work: Generator[Event, None, Corpus]) -> Generator[Event, None, None]:
        result.append((yield from work))

    result: list[Corpus] = []
    return list(collect(open_datasets(texts))), result[0]


def test_without_weights_datasets_count_by_their_tokens(datasets: Path) -> None:
    told, corpus = opened("a", "b")
    a, b = open_dataset(datasets / "a"), open_dataset(datasets / "b")
    assert [source.share for source in corpus.train.sources] == [
        Fraction(len(each.train), len(a.train) + len(b.train)) for each in (a, b)
    ]
    assert len(corpus.val) == len(a.val) + len(b.val)
    assert [event.message for event in told if isinstance(event, Noted)]


def test_the_row_of_a_mixture_is_its_datasets_end_to_end(datasets: Path) -> None:
    _, corpus = opened("b:0.5", "a:1.5")
    b, a = open_dataset(datasets / "b").train, open_dataset(datasets / "a").train
    row = corpus.train.gather(np.array([0]), len(corpus.train))[0]
    assert np.array_equal(row, np.concatenate([each.gather(np.array([0]), len(each))[0] for each in (b, a)]))
    assert [source.share for source in corpus.train.sources] == [Fraction(1, 4), Fraction(3, 4)]


def test_the_fingerprint_tells_weights_and_order_and_one_dataset_keeps_its_own(datasets: Path) -> None:
    prints = [opened(*each)[1].fingerprint for each in (["a", "b"], ["a:1", "b:2"], ["a:2", "b:4"], ["b:2", "a:1"])]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3
    assert opened("a:0.3")[1].fingerprint == open_dataset(datasets / "a").fingerprint


def test_datasets_of_different_tokenizers_are_refused_by_name(datasets: Path) -> None:
    config = DataConfig(input_files=(str(datasets / "a.txt"),), tokenization="char")
    list(prepare_dataset(config, datasets / "c"))
    with pytest.raises(DataError, match=r"c: its tokens are 'char' .* 'byte' tokens of a"):
        opened("a", "c")


def test_a_mixture_with_a_source_that_is_too_short_is_refused_by_name(datasets: Path) -> None:
    _, corpus = opened("a", "b")
    with pytest.raises(DataError, match=r"^a: a split of it has"):
        corpus.require_blocks(len(open_dataset(datasets / "a").train))


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_a_weight_is_read_exactly(weight: float) -> None:
    (choice,) = read_choices([f"no/such folder:{weight}"])
    assert choice == (Path("no/such folder"), Fraction(str(weight)))


@pytest.mark.parametrize("text", ["C:\\books", "C:/books", "/data/a:b/c", "plain", "./plain", ":0.5"])
def test_a_path_with_a_colon_is_a_path(text: str) -> None:
    assert read_choices([text]) == [(Path(text), None)]


def test_a_folder_that_is_there_is_a_path_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a:0.5").mkdir()
    assert read_choices([f"{tmp_path}/a:0.5"]) == [(tmp_path / "a:0.5", None)]
    assert read_choices([f"{tmp_path}/a:0.5:2"]) == [(tmp_path / "a:0.5", Fraction(2))]


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "much", "", "1e-9999", "1e9999"])
def test_what_is_no_weight_is_refused(weight: str) -> None:
    with pytest.raises(UsageError, match="is no weight"):
        read_choices([f"data:{weight}"])


def test_weights_for_some_only_and_parts_beyond_measure_are_refused() -> None:
    with pytest.raises(UsageError, match="b: has no weight"):
        read_choices(["a:1", "b"])
    with pytest.raises(UsageError, match="a: its part of the samples is 1e-09"):
        shares(read_choices(["a:1e-9", "b:1"]), [5, 5])


def test_a_config_file_may_name_several(datasets: Path) -> None:
    values = json.loads('{"dataset_dir": ["a:0.7", "b:0.3"]}')
    config = DataConfig.parse(values, where="test")
    assert [source.share for source in opened(*config.dataset_dir)[1].train.sources] == [
        Fraction(7, 10),
        Fraction(3, 10),
    ]
