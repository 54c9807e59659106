"""Tokens per second are true tokens over true seconds."""

from collections.abc import Iterator

from mypt.core.train.meter import Meter


def meter_reading(*times_s: float) -> Meter:
    """A meter of 100 tokens a step on a clock that shows these times, one after the other."""
    clock: Iterator[float] = iter(times_s)
    return Meter(100, lambda: next(clock))


def test_speed_is_tokens_over_seconds() -> None:
    meter = meter_reading(0.0, 2.0, 4.0)
    meter.step()
    meter.step()
    assert meter.tokens_per_s == 2 * 100 / 4.0


def test_evaluation_time_is_left_out() -> None:
    meter = meter_reading(0.0, 1.0, 11.0, 12.0)
    meter.step()
    meter.resume()  # ten seconds of evaluation have passed
    meter.step()
    assert meter.tokens_per_s == 2 * 100 / 2.0


def test_a_lap_covers_only_the_steps_since_the_last_one() -> None:
    meter = meter_reading(0.0, 10.0, 11.0, 12.0)
    meter.step()
    assert meter.lap_tokens_per_s() == 100 / 10.0
    meter.step()
    meter.step()
    assert meter.lap_tokens_per_s() == 200 / 2.0


def test_remaining_time_counts_evaluations_too() -> None:
    meter = meter_reading(0.0, 1.0, 5.0, 6.0, 6.0)
    meter.step()
    meter.resume()
    meter.step()
    assert meter.eta_s(10) == 6.0 / 2 * 10


def test_nothing_done_has_no_speed() -> None:
    meter = meter_reading(0.0, 0.0)
    assert meter.tokens_per_s == 0.0
    assert meter.eta_s(5) == 0.0


def test_seconds_the_device_still_worked_belong_to_the_steps() -> None:
    meter = meter_reading(0.0, 1.0, 5.0, 9.0, 10.0)
    meter.step()
    meter.settle()  # the device was done four seconds after the step was sent to it
    meter.resume()  # then came four seconds of evaluation
    meter.step()
    assert meter.tokens_per_s == 2 * 100 / 6.0
