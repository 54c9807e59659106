"""Numbers for human eyes: counts, bytes, seconds, curves. Pure functions."""

import re
from collections.abc import Sequence
from itertools import pairwise

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
_UNITS_S = (_DAY_S, _HOUR_S, _MINUTE_S, 1)
_KIB = 1024
_MOST_DIGITS = 20
_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)([kmbt])?", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])?(i)?b?", re.IGNORECASE)
_SPARKS = "▁▂▃▄▅▆▇█"


def human_count(count: float) -> str:
    """Shorten a count with decimal prefixes: 11_376_000 -> '11.4M'."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        # 999_950 would print as "1000.0K": let it move to the next prefix.
        if abs(count) >= limit * 0.99995:
            return f"{count / limit:.1f}{suffix}"
    return f"{count:.0f}"


def human_bytes(size_bytes: float) -> str:
    """Shorten a size with binary prefixes: 1536 -> '1.5 KiB', 370 x 2^20 -> '370 MiB'."""
    size, suffix = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        # 1023.6 would print as "1024": let it move to the next prefix.
        if abs(size) < _KIB - 0.5:
            break
        size, suffix = size / _KIB, larger
    has_decimal = suffix != "B" and abs(size) < 100  # noqa: PLR2004 - three digits say enough
    return f"{size:.1f} {suffix}" if has_decimal else f"{size:.0f} {suffix}"


def parse_bytes(text: str) -> int:
    """Read a size: '2GB' -> 2_000_000_000, '64 KiB' -> 65_536, '1000' -> 1000.

    Raises:
        ValueError: when it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no size (for example 500MB, 2GB or 1.5GiB)")
    if len(found[1]) > _MOST_DIGITS:
        raise ValueError(f"{text[:_MOST_DIGITS]}… is larger than any disk")
    power = " KMGT".index((found[2] or " ").upper())
    return round(float(found[1]) * (_KIB if found[3] else 1000) ** power)


def parse_count(text: str) -> float:
    """Read a count: '10M' -> 10_000_000, '1e9', '2.5B', '5_000'.

    Raises:
        ValueError: when it is none.
    """
    found = _COUNT.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if not found or len(found[1]) > _MOST_DIGITS:
        raise ValueError(f"{text[:_MOST_DIGITS]!r} is no count (for example 10M, 1e9 or 5000)")
    return float(found[1]) * 1000.0 ** " KMBT".index((found[2] or " ").upper())


def parse_duration(text: str) -> float:
    """Read a duration in seconds: '45m' -> 2700, '1h30m', '90s', '2d'.

    Raises:
        ValueError: when it is none.
    """
    found = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if not found or not any(found.groups()) or len(text) > 2 * _MOST_DIGITS:
        raise ValueError(f"{text[:_MOST_DIGITS]!r} is no duration (for example 45m, 1h30m or 90s)")
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True) if part)


def human_duration(duration_s: float) -> str:
    """Shorten a duration: 0.25 -> '0.2s', 75 -> '1m15s', 7260 -> '2h01m'."""
    if duration_s < 10:  # noqa: PLR2004 - below ten seconds a tenth still matters
        return f"{max(duration_s, 0):.1f}s"
    whole_s = round(duration_s)
    if whole_s < _MINUTE_S:
        return f"{whole_s}s"
    if whole_s < _HOUR_S:
        return f"{whole_s // _MINUTE_S}m{whole_s % _MINUTE_S:02d}s"
    if whole_s < _DAY_S:
        return f"{whole_s // _HOUR_S}h{whole_s % _HOUR_S // _MINUTE_S:02d}m"
    return f"{whole_s // _DAY_S}d{whole_s % _DAY_S // _HOUR_S:02d}h"


def sparkline(values: Sequence[float], width: int = 48) -> str:
    """Draw values as bars; more values than `width` are averaged in equal runs."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    # Divided last: by a tiny difference alone it would be infinite.
    height, most = high - low or 1, len(_SPARKS) - 1
    return "".join(_SPARKS[round((mean - low) / height * most)] for mean in means)


def several(count: int, what: str) -> str:
    """Count things in words: '1 file', '2,000 files'."""
    return f"{count:,} {what}" + ("s" if count != 1 else "")
