"""What is told while a machine is measured."""

from dataclasses import dataclass

from mypt.events.base import Event


@dataclass(frozen=True, slots=True)
class BenchStarted(Event):
    """The machine was looked at: FLOP/s of a large matrix product, and the presets to be measured."""

    event = "bench_started"
    device: str
    precision: str
    matrix_flops_per_s: float
    presets: tuple[str, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class Measured(Event):
    """One child process has measured one row: 'start', 'training', 'generation', or what is compared with."""

    event = "measured"
    round: int
    preset: str
    what: str
    figures: dict[str, float | str | None]


@dataclass(frozen=True, slots=True)
class LeftOut(Event):
    """Something is not measured."""

    event = "left_out"
    name: str
    why: str
