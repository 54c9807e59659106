"""The learning rate's laws."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.core.train.schedule import learning_rate
from mypt.records.run import TrainingConfig

CONFIG = TrainingConfig(max_iters=100, warmup_iters=10, min_lr_ratio=0.1)


def test_warm_up_climbs_evenly_to_the_peak() -> None:
    rates = [learning_rate(1e-3, step, CONFIG) for step in range(10)]
    assert rates == pytest.approx([1e-4 * (step + 1) for step in range(10)])


def test_the_last_step_uses_the_smallest_rate() -> None:
    assert learning_rate(1e-3, 99, CONFIG) == pytest.approx(1e-4)


def test_half_way_down_is_the_mean_of_peak_and_end() -> None:
    assert learning_rate(1e-3, 10 + 44, CONFIG) == pytest.approx((1e-3 + 1e-4) / 2, rel=1e-6)


def test_after_warm_up_the_rate_only_falls() -> None:
    rates = [learning_rate(1e-3, step, CONFIG) for step in range(10, 100)]
    assert all(later < earlier for earlier, later in pairwise(rates))


@given(
    max_iters=st.integers(1, 5000),
    warmup_iters=st.integers(0, 6000),
    ratio=st.floats(0, 1),
    step=st.integers(0, 5000),
)
def test_no_rate_is_above_the_peak_or_not_a_number(max_iters: int, warmup_iters: int, ratio: float, step: int) -> None:
    config = TrainingConfig(max_iters=max_iters, warmup_iters=warmup_iters, min_lr_ratio=ratio)
    rate = learning_rate(0.5, min(step, max_iters - 1), config)
    assert math.isfinite(rate)
    assert 0 <= rate <= 0.5 * (1 + 1e-12)
