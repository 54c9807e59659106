"""The learning rate's laws."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.core.train.schedule import learning_rate
from mypt.records.run import Schedule, TrainingConfig

SCHEDULES: list[Schedule] = ["cosine", "linear", "wsd"]
CONFIG = TrainingConfig(max_iters=100, warmup_iters=10, min_lr_ratio=0.1)

CONFIGS = st.builds(
    TrainingConfig,
    schedule=st.sampled_from(SCHEDULES),
    max_iters=st.integers(1, 5000),
    warmup_iters=st.integers(0, 6000),
    min_lr_ratio=st.floats(0, 1),
    decay_share=st.floats(0, 1),
)


def with_schedule(schedule: Schedule, **changes: float) -> TrainingConfig:
    return CONFIG.model_copy(update={"schedule": schedule, **changes})


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_climbs_evenly_to_the_peak(schedule: Schedule) -> None:
    rates = [learning_rate(1e-3, step, with_schedule(schedule)) for step in range(10)]
    assert rates == pytest.approx([1e-4 * (step + 1) for step in range(10)])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_half_way_down_is_the_mean_of_peak_and_end(schedule: Schedule) -> None:
    assert learning_rate(1e-3, 10 + 44, with_schedule(schedule)) == pytest.approx((1e-3 + 1e-4) / 2, rel=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_after_warm_up_the_rate_only_falls(schedule: Schedule) -> None:
    rates = [learning_rate(1e-3, step, with_schedule(schedule)) for step in range(10, 100)]
    assert all(later < earlier for earlier, later in pairwise(rates))


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_wsd_stays_at_the_peak_and_falls_evenly_over_its_share(share: float) -> None:
    config = with_schedule("wsd", decay_share=share, min_lr_ratio=0.0, warmup_iters=0)
    rates = [learning_rate(1.0, step, config) for step in range(100)]
    flat = round(100 * (1 - share))
    assert rates[:flat] == [1.0] * flat
    falls = [earlier - later for earlier, later in pairwise(rates[flat - 1 :])]
    assert falls == pytest.approx([1 / (100 * share)] * round(100 * share))


def test_wsd_without_a_share_stays_at_the_peak_but_for_the_last_step() -> None:
    rates = [learning_rate(1.0, step, with_schedule("wsd", decay_share=0.0)) for step in range(10, 100)]
    assert rates == [1.0] * 89 + [0.1]


@given(config=CONFIGS, step=st.integers(0, 5000))
def test_no_rate_is_above_the_peak_or_not_a_number(config: TrainingConfig, step: int) -> None:
    rate = learning_rate(0.5, step, config)
    assert math.isfinite(rate)
    assert 0 <= rate <= 0.5 * (1 + 1e-12)


@given(config=CONFIGS)
def test_the_last_step_uses_the_smallest_rate(config: TrainingConfig) -> None:
    last = learning_rate(0.5, config.max_iters - 1, config)
    assert last == pytest.approx(0.5 * config.min_lr_ratio)


@given(config=CONFIGS)
def test_a_run_climbs_once_and_falls_once_without_a_jump(config: TrainingConfig) -> None:
    rates = [learning_rate(1.0, step, config) for step in range(config.max_iters)]
    warmup = min(config.warmup_iters, config.max_iters // 2)
    assert all(earlier < later for earlier, later in pairwise(rates[:warmup]))
    assert all(earlier >= later - 1e-12 for earlier, later in pairwise(rates[max(warmup - 1, 0) :]))
    falling = (config.max_iters - warmup) * (config.decay_share if config.schedule == "wsd" else 1)
    steepest = math.pi / 2 / max(1.0, falling)
    assert all(abs(later - earlier) <= steepest + 1e-9 for earlier, later in pairwise(rates[max(warmup - 1, 0) :]))


@given(config=CONFIGS, step=st.integers(0, 5000), peak=st.floats(1e-6, 10))
def test_all_groups_are_at_the_same_share_of_their_peaks(config: TrainingConfig, step: int, peak: float) -> None:
    assert learning_rate(peak, step, config) == pytest.approx(peak * learning_rate(1.0, step, config), rel=1e-12)
