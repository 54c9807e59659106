"""Numbers for human eyes can be read back, grow as they grow, and never overflow their unit."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mypt.units import human_bytes, human_count, human_duration, parse_count, parse_duration, sparkline

COUNT_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
BYTE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def read_count(text: str) -> tuple[float, float]:
    # The number, and the value of one unit of the last digit shown.
    unit = text[-1] if text[-1] in COUNT_UNITS else ""
    number = text.removesuffix(unit)
    return float(number) * COUNT_UNITS[unit], COUNT_UNITS[unit] * (0.1 if "." in number else 1)


def read_bytes(text: str) -> tuple[float, float]:
    number, unit = text.split(" ")
    return float(number) * BYTE_UNITS[unit], BYTE_UNITS[unit] * (0.1 if "." in number else 1)


def read_duration(text: str) -> tuple[float, float]:
    pieces = re.findall(r"([\d.]+)([smhd])", text)
    assert "".join(number + unit for number, unit in pieces) == text
    value = sum(float(number) * DURATION_UNITS[unit] for number, unit in pieces)
    return value, 0.1 if "." in text else DURATION_UNITS[pieces[-1][1]]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.0K"),
        (11_376_000, "11.4M"),
        (999_949, "999.9K"),
        (999_950, "1.0M"),
        (999_999_999, "1.0B"),
        (2.5e12, "2.5T"),
        (-1500, "-1.5K"),
    ],
)
def test_counts_are_written_as_people_write_them(count: float, text: str) -> None:
    assert human_count(count) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (5 * 2**50, "5120 TiB")],
)
def test_sizes_are_written_as_people_write_them(size_bytes: int, text: str) -> None:
    assert human_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0.0s"),
        (-1, "0.0s"),
        (0.25, "0.2s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (75, "1m15s"),
        (3599.6, "1h00m"),
        (7260, "2h01m"),
        (86_399.7, "1d00h"),
        (90_000, "1d01h"),
    ],
)
def test_durations_are_written_as_people_write_them(duration_s: float, text: str) -> None:
    assert human_duration(duration_s) == text


@given(st.integers(0, 10**15))
def test_a_count_reads_back_within_half_a_digit(count: int) -> None:
    value, digit = read_count(human_count(count))
    assert abs(value - count) <= digit * 0.5001


@given(st.integers(0, 2**50))
def test_a_size_reads_back_within_half_a_digit(size_bytes: int) -> None:
    value, digit = read_bytes(human_bytes(size_bytes))
    assert abs(value - size_bytes) <= digit * 0.5001


@given(st.floats(0, 1e7))
def test_a_duration_reads_back_within_one_unit(duration_s: float) -> None:
    value, digit = read_duration(human_duration(duration_s))
    assert abs(value - duration_s) <= digit * 1.0001


def around(exponents: list[float]) -> st.SearchStrategy[int]:
    # Whole numbers just below and above each border between two units.
    return st.sampled_from(exponents).flatmap(lambda border: st.integers(int(border * 0.9989), int(border * 1.001)))


@given(around([1e3, 1e6, 1e9, 1e12]))
def test_a_count_never_shows_a_thousand_of_its_unit(count: int) -> None:
    assert not human_count(count).startswith("1000")


@given(around([2**20, 2**30, 2**40]))
def test_a_size_never_shows_1024_of_its_unit(size_bytes: int) -> None:
    assert not human_bytes(size_bytes).startswith("1024")


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_larger_number_never_looks_smaller(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert read_count(human_count(low)) <= read_count(human_count(high))
    assert read_bytes(human_bytes(low)) <= read_bytes(human_bytes(high))
    assert read_duration(human_duration(low / 1e6))[0] <= read_duration(human_duration(high / 1e6))[0]


@example([0.0, 2.2e-309], 2)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 60))
def test_a_sparkline_is_as_wide_as_its_values_and_no_wider_than_allowed(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_a_sparkline_rises_where_its_values_rise() -> None:
    drawn = sparkline([0, 1, 2, 3, 4, 5, 6, 7])
    assert list(drawn) == sorted(drawn)
    assert len(set(drawn)) == 8
    assert len(set(sparkline([3.0] * 9))) == 1
    assert sparkline([]) == ""


@pytest.mark.parametrize(
    ("text", "count"), [("10M", 1e7), ("1e9", 1e9), ("2.5b", 2.5e9), ("5_000", 5000), ("5,000", 5000), (" 3k ", 3000)]
)
def test_counts_are_read(text: str, count: float) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "-1", "1e", "1e999", "ten", "10 M", "1.2.3", "9" * 30])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no count"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "duration_s"), [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("1.5H", 5400), ("1d 2h 3m 4s", 93_784)]
)
def test_durations_are_read(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize("text", ["", "45", "m", "30m1h", "-5m", "1h30", "soon", "9" * 50 + "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)
