"""The next id is drawn from the distribution that was asked for, written out again in numpy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from generating import distribution
from mypt.core.generate.sampler import choose
from mypt.records.sampling import SamplingConfig

# Eighths are exact in float32, and tell likelier from less likely.
LOGITS = st.lists(st.integers(-80, 80), min_size=1, max_size=40).map(lambda eighths: [n / 8 for n in eighths])
DISTINCT = st.lists(st.integers(-80, 80), min_size=1, max_size=40, unique=True).map(
    lambda eighths: [n / 8 for n in eighths]
)
TEMPERATURES = st.sampled_from([0.25, 0.5, 0.8, 1.0, 2.0, 10.0])
TOP_K = st.none() | st.integers(1, 45)
TOP_P = st.none() | st.floats(0.01, 1.0)
MIN_P = st.none() | st.floats(0.0, 1.0)
CONFIGS = st.builds(SamplingConfig, temperature=TEMPERATURES, top_k=TOP_K, top_p=TOP_P, min_p=MIN_P, typical_p=TOP_P)


class Decided(NamedTuple):
    """A distribution, and how near the nearest decision is to falling the other way."""

    probabilities: NDArray[np.float64]
    margin: float


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def first_to_hold(probabilities: NDArray[np.float64], order: NDArray[np.float64], share: float) -> Decided:
    # Lowest order first, until they hold the share.
    places = [place for place in np.argsort(order, kind="stable") if probabilities[place] > 0]
    held = np.cumsum(probabilities[places])
    border = order[places[min(int(np.searchsorted(held, share)), len(places) - 1)]]
    kept = np.where((order <= border) & (probabilities > 0), probabilities, 0)
    return Decided(kept / kept.sum(), float(np.abs(held[:-1] - share).min(initial=1)))


def decided(logits: list[float], config: SamplingConfig) -> Decided:
    # Temperature, the k likeliest, those that together reach p, those not far below the best, the most typical.
    scores = np.array(logits, dtype=np.float64) / config.temperature
    if config.top_k is not None:
        likelier = (scores[None, :] > scores[:, None]).sum(axis=1)
        scores = np.where(likelier < config.top_k, scores, -np.inf)
    probabilities, margins = softmax(scores), [1.0]
    if config.top_p is not None:
        probabilities, margin = first_to_hold(probabilities, -probabilities, config.top_p)
        margins.append(margin)
    if config.min_p is not None:
        ratios = probabilities / probabilities.max()
        margins.append(np.abs(ratios[ratios < 1] - config.min_p).min(initial=1) if config.min_p else 1)
        probabilities = np.where(ratios >= config.min_p, probabilities, 0)
        probabilities /= probabilities.sum()
    if config.typical_p is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            information = -np.log(probabilities)
            surprise = np.abs(information - np.nansum(probabilities * information))
        likely = np.sort(surprise[probabilities > 0])
        margins.append(np.diff(likely).min(initial=1))
        probabilities, margin = first_to_hold(probabilities, surprise, config.typical_p)
        margins.append(margin)
    return Decided(probabilities, float(min(margins)))


def reference(logits: list[float], config: SamplingConfig) -> NDArray[np.float64]:
    return decided(logits, config).probabilities


def rounding_decides(logits: list[float], config: SamplingConfig) -> bool:
    return decided(logits, config).margin < 1e-4


def probabilities_of(logits: list[float], config: SamplingConfig) -> NDArray[np.float64]:
    return distribution(np.array(logits, dtype=np.float32), config)


def sample(logits: Sequence[float] | NDArray[np.float32], config: SamplingConfig, chance: float = 0.5) -> int:
    return choose(np.array([logits], dtype=np.float32), config, [chance])[0]


@settings(max_examples=600, deadline=None)
@given(DISTINCT, CONFIGS)
def test_the_distribution_is_the_written_out_one(logits: list[float], config: SamplingConfig) -> None:
    assume(not rounding_decides(logits, config))
    expected, found = reference(logits, config), probabilities_of(logits, config)
    assert np.array_equal(found > 0, expected > np.finfo(np.float32).tiny)
    assert found == pytest.approx(expected, abs=1e-5)


@settings(deadline=None)
@given(LOGITS, CONFIGS)
def test_every_distribution_sums_to_one_and_only_typical_p_leaves_out_the_likeliest(
    logits: list[float], config: SamplingConfig
) -> None:
    probabilities = probabilities_of(logits, config)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert config.typical_p is not None or max(logits) == logits[int(probabilities.argmax())]


@settings(deadline=None)
@given(LOGITS, CONFIGS)
def test_equal_logits_are_equally_likely_whatever_the_filters(logits: list[float], config: SamplingConfig) -> None:
    probabilities = probabilities_of(logits, config)
    for logit, probability in zip(logits, probabilities, strict=True):
        assert probability == probabilities[logits.index(logit)]


@settings(deadline=None)
@given(DISTINCT, st.integers(1, 45))
def test_top_k_leaves_k_ids(logits: list[float], top_k: int) -> None:
    probabilities = probabilities_of(logits, SamplingConfig(temperature=1.0, top_k=top_k))
    assert (probabilities > 0).sum() == min(top_k, len(logits))
    assert set(np.flatnonzero(probabilities)) == set(np.argsort(logits)[-top_k:])


@settings(deadline=None)
@given(DISTINCT, TEMPERATURES, st.floats(0.01, 0.999))
def test_top_p_leaves_the_fewest_ids_that_reach_p(logits: list[float], temperature: float, top_p: float) -> None:
    config = SamplingConfig(temperature=temperature, top_p=top_p)
    kept = probabilities_of(logits, config) > 0
    full = softmax(np.array(logits) / temperature)
    assert full[kept].sum() >= top_p - 1e-4
    assert full[kept].sum() - full[kept].min() < top_p + 1e-4
    assert full[kept].min() >= full[~kept].max(initial=0)


@pytest.mark.parametrize("vocab_size", [600, 3000, 20_000])
@pytest.mark.parametrize("name", ["top_p", "typical_p"])
def test_filters_that_leave_thousands_of_ids_leave_the_written_out_ones(name: str, vocab_size: int) -> None:
    logits = (np.random.default_rng(vocab_size).standard_normal(vocab_size) * 2).astype(np.float32).tolist()
    kept = 0
    for share in (0.1, 0.5, 0.9, 0.97, 0.999):
        config = SamplingConfig.parse({"temperature": 3.0, name: share}, where="test")
        expected, found = reference(logits, config), probabilities_of(logits, config)
        assert ((found > 0) != (expected > 0)).sum() <= 1, "rounding decides about the id at the border"
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3 / vocab_size)
        kept = max(kept, (found > 0).sum())
    assert kept > 0.9 * vocab_size


@pytest.mark.parametrize("min_p", [1e-6, 0.02, 0.5, 1.0])
def test_min_p_leaves_those_at_least_that_share_as_likely_as_the_likeliest(min_p: float) -> None:
    logits = np.random.default_rng(4).standard_normal(5000).astype(np.float32)
    logits[:2] = logits.max()
    kept = probabilities_of(logits.tolist(), SamplingConfig(temperature=0.5, min_p=min_p)) > 0
    shares = np.exp((logits.astype(np.float64) - logits.max()) / 0.5)
    assert kept[shares >= min_p * (1 + 1e-5)].all()
    assert kept[:2].all()
    assert not kept[shares < min_p * (1 - 1e-5)].any()


def test_equal_logits_at_the_border_are_kept_or_left_together() -> None:
    probabilities = probabilities_of([1.0, 0.0, 0.0, -1.0], SamplingConfig(temperature=1.0, top_k=2))
    assert (probabilities > 0).tolist() == [True, True, True, False]


@settings(deadline=None)
@given(DISTINCT, TOP_K, TOP_P)
def test_temperature_zero_takes_the_likeliest_whatever_the_filters(
    logits: list[float], top_k: int | None, top_p: float | None
) -> None:
    config = SamplingConfig(temperature=0.0, top_k=top_k, top_p=top_p)
    assert sample(logits, config) == int(np.argmax(logits))


@settings(deadline=None)
@given(DISTINCT, TEMPERATURES)
def test_the_narrowest_filters_take_the_likeliest(logits: list[float], temperature: float) -> None:
    for narrow in (
        SamplingConfig(temperature=temperature, top_k=1),
        SamplingConfig(temperature=temperature, top_p=1e-6),
    ):
        assert sample(logits, narrow) == int(np.argmax(logits))


@pytest.mark.parametrize("temperature", [1e-6, 1e-37, 1e-40, 1e-300])
def test_the_lowest_temperatures_are_greedy_too(temperature: float) -> None:
    logits = [1.0, 30.0, -20.0, 29.0]
    assert sample(logits, SamplingConfig(temperature=temperature)) == 1
    assert sample(logits, SamplingConfig(temperature=temperature, top_k=2, top_p=0.9)) == 1


@settings(max_examples=50, deadline=None)
@given(LOGITS, CONFIGS, st.floats(0, 1, exclude_max=True))
def test_the_same_chance_gives_the_same_id_and_it_is_a_kept_one(
    logits: list[float], config: SamplingConfig, chance: float
) -> None:
    first, second = (sample(logits, config, chance) for _ in range(2))
    assert first == second
    assert probabilities_of(logits, config)[first] > 0


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(temperature=1.0),
        SamplingConfig(temperature=0.7),
        SamplingConfig(temperature=1.3, top_k=3),
        SamplingConfig(temperature=1.0, top_p=0.85),
        SamplingConfig(temperature=0.9, top_k=4, top_p=0.9),
        SamplingConfig(temperature=1.1, min_p=0.3),
        SamplingConfig(temperature=1.1, typical_p=0.6),
        SamplingConfig(temperature=1.1, top_k=5, top_p=0.95, min_p=0.1, typical_p=0.9),
    ],
)
def test_ids_are_drawn_as_often_as_they_should(config: SamplingConfig) -> None:
    logits, draws = [1.0, 0.25, -0.5, 0.75, -2.0, 0.0], 20_000
    chances = np.random.default_rng(7).random(draws).tolist()
    counts = np.bincount(choose(np.array([logits] * draws, dtype=np.float32), config, chances), minlength=len(logits))
    expected = reference(logits, config) * draws
    assert (counts[expected == 0] == 0).all()
    # Chi-square with at most 5 degrees of freedom: below 25.7 with probability 0.9999.
    possible = expected > 0
    assert ((counts[possible] - expected[possible]) ** 2 / expected[possible]).sum() < 25.7


def test_the_logits_are_not_changed_by_sampling() -> None:
    logits = np.array([[0.5, 2.0, -1.0]], dtype=np.float32)
    choose(logits, SamplingConfig(temperature=0.5, top_k=2, top_p=0.9), [0.5])
    assert logits.tolist() == [[0.5, 2.0, -1.0]]
