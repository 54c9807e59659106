"""The draw itself: in small and large vocabularies, at the borders of its blocks, alone and among other rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from generating import distribution
from mypt.core.generate.sampler import choose
from mypt.records.sampling import SamplingConfig

PLAIN = SamplingConfig(temperature=1.0)
# Around what is looked at first, and around the blocks of the draw.
SIZES = [1, 2, 255, 256, 257, 511, 512, 513, 767, 768, 769, 3000]
FILTERS = [
    PLAIN,
    SamplingConfig(temperature=0.7, top_k=40),
    SamplingConfig(temperature=1.0, top_k=600),
    SamplingConfig(temperature=1.0, top_p=0.8),
    SamplingConfig(temperature=3.0, top_p=0.97),
    SamplingConfig(temperature=1.0, min_p=0.05),
    SamplingConfig(temperature=1.0, typical_p=0.5),
    SamplingConfig(temperature=1.2, top_k=300, top_p=0.9, min_p=0.01, typical_p=0.9),
]
each_filter = pytest.mark.parametrize(
    "config", FILTERS, ids=lambda config: str(config.model_dump(exclude_defaults=True))
)
LOWEST, HIGHEST = 0.0, float(np.nextafter(1, 0))


def drawn(logits: NDArray[np.float32], config: SamplingConfig, chances: list[float]) -> NDArray[np.int64]:
    return np.array(choose(np.broadcast_to(logits, (len(chances), len(logits))), config, chances))


def require_passed(probabilities: NDArray[np.float64], ids: NDArray[np.int64], chances: NDArray[np.float64]) -> None:
    """Each chance lies in the stretch of its id, ids being laid end to end."""
    ends = np.cumsum(probabilities)
    assert (probabilities[ids] > 0).all()
    assert (chances <= ends[ids] + 1e-6).all()
    assert (chances >= ends[ids] - probabilities[ids] - 1e-6).all()


@each_filter
@pytest.mark.parametrize("vocab_size", SIZES)
def test_the_id_drawn_is_the_one_whose_summed_probability_passes_the_chance(
    vocab_size: int, config: SamplingConfig
) -> None:
    chance = np.random.default_rng(vocab_size)
    logits = (chance.standard_normal(vocab_size) * 2).astype(np.float32)
    probabilities = distribution(logits, config)
    borders = np.cumsum(probabilities)[255::256]
    chances = np.concatenate(
        [[LOWEST, HIGHEST], chance.random(40), borders[borders < 1], np.nextafter(borders, 0).clip(0, HIGHEST)]
    )
    require_passed(probabilities, drawn(logits, config, chances.tolist()), chances)


@pytest.mark.parametrize("vocab_size", [257, 512, 1025, 5000])
def test_ids_without_weight_are_never_drawn(vocab_size: int) -> None:
    chance = np.random.default_rng(3)
    for kept in ([0], [vocab_size - 1], [vocab_size // 2], [256, vocab_size - 1], [0, 255]):
        logits = np.full(vocab_size, -np.inf, dtype=np.float32)
        logits[kept] = chance.standard_normal(len(kept))
        chances = [LOWEST, 1e-300, 2.0**-53, *chance.random(50), 1 - 2.0**-20, HIGHEST]
        for config in FILTERS:
            assert set(drawn(logits, config, chances).tolist()) <= set(kept)


def test_the_lowest_chance_draws_the_first_and_the_highest_the_last() -> None:
    logits = np.zeros(1000, dtype=np.float32)
    logits[:300] = logits[-300:] = -np.inf
    assert drawn(logits, PLAIN, [LOWEST, HIGHEST]).tolist() == [300, 699]


def test_no_rounding_leads_past_the_last_id_of_a_block() -> None:
    """Where a block ends, its own sum and the sum of its parts are not rounded alike."""
    logits = (np.random.default_rng(8).standard_normal((2000, 512)) * 3).astype(np.float32)
    logits[:, 200:256] = logits[:, 480:] = -np.inf
    weights = np.exp(logits.astype(np.float64))
    borders = weights[:, :256].sum(axis=1) / weights.sum(axis=1)
    for ulps in range(-12, 13):
        chances = borders + ulps * np.spacing(borders)
        assert all(place < 200 or 256 <= place < 480 for place in choose(logits, PLAIN, chances.tolist()))
    assert all(256 <= place < 480 for place in choose(logits, PLAIN, [HIGHEST] * len(logits)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SIZES), st.sampled_from(FILTERS), st.integers(1, 5), st.booleans())
def test_a_row_among_others_is_drawn_as_alone(
    seed: int, vocab_size: int, config: SamplingConfig, rows: int, is_coarse: bool
) -> None:
    """Coarse logits are often equal: how those are sorted is never to be seen."""
    chance = np.random.default_rng(seed)
    sharpness = chance.uniform(0.1, 5, (rows, 1))
    logits = (chance.standard_normal((rows, vocab_size)) * sharpness).astype(np.float32)
    logits = (logits * 2).round() / np.float32(2) if is_coarse else logits
    chances = chance.random(rows).tolist()
    alone = [choose(logits[row : row + 1], config, [chances[row]])[0] for row in range(rows)]
    assert choose(logits, config, chances) == alone


@pytest.mark.parametrize("config", FILTERS[:2] + FILTERS[-1:])
def test_evenly_spread_chances_draw_each_id_as_often_as_it_is_likely(config: SamplingConfig) -> None:
    """To within one draw: a stretch of the line holds its length of an even comb."""
    logits = np.random.default_rng(5).standard_normal(3000).astype(np.float32)
    draws = 20_000
    chances = (np.arange(draws) + 0.5) / draws
    ids = np.concatenate([drawn(logits, config, part.tolist()) for part in np.split(chances, 20)])
    counts = np.bincount(ids, minlength=len(logits))
    assert np.abs(counts - distribution(logits, config) * draws).max() < 1.1


def test_a_large_vocabulary_is_drawn_from_as_often_as_it_should() -> None:
    chance = np.random.default_rng(6)
    logits, draws = chance.standard_normal(3000).astype(np.float32), 100_000
    chances = np.split(chance.random(draws), 100)
    counts = np.bincount(np.concatenate([drawn(logits, PLAIN, part.tolist()) for part in chances]), minlength=3000)
    exact = np.exp(logits.astype(np.float64))
    expected = exact / exact.sum() * draws
    enough = expected >= 5
    statistic, freedom = ((counts - expected)[enough] ** 2 / expected[enough]).sum(), enough.sum()
    # Of so many degrees of freedom chi-square is nearly normal: within four deviations.
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)
