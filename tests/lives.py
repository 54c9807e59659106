"""A training in several lives: each ends by itself or by kill -9, and leaves what the next one needs."""

import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forking import Forks
from mypt.core.checkpoint.state import ALL_FILES
from mypt.core.checkpoint.store import ModelDirectory

Chain = dict[tuple[str, int], dict[str, Any]]
"""What was logged of each step and evaluation: floats in hex, times left out."""

_TIMES = {"tokens_per_s", "elapsed_s", "eta_s"}


@dataclass(frozen=True)
class Run:
    """One command, given again and again."""

    forks: Forks
    folder: Path
    name: str
    settings: tuple[object, ...]
    truth: Chain | None = None
    """The chain of the unbroken run."""
    save_interval: int | None = None
    """Steps between saves, where it is steps."""
    launched: bool = False
    """The command is a launcher's child, and a kill means both."""

    @property
    def directory(self) -> ModelDirectory:
        return ModelDirectory(self.folder / "checkpoints", self.name)

    def newest_step(self) -> int:
        """Where the next life will begin. Whatever happened, the newest state is whole."""
        state = self.directory.newest(ALL_FILES, _refuse, quarantine=False)
        return state.step if state else 0

    def log(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl."""
        path = self.directory.metrics_path
        return whole_lines(path) if path.exists() else []

    def chain(self) -> Chain:
        """The log of a run that was never broken: each line once."""
        lines = self.log()
        chain = dict(map(_link, lines))
        assert len(chain) == len(lines)
        return chain

    def leftovers(self) -> set[str]:
        """Names that only a save under way, or a killed one, leaves in the model's folder."""
        path = self.directory.path
        return {each.name for each in path.glob(".*")} if path.is_dir() else set()

    def begin(self, *more: object) -> "Life":
        """Give the command, with `more` settings."""
        return Life(self, more)

    def to_the_end(self, *more: object) -> float:
        """A life that nobody ends; gives how long its first step took to come."""
        life = self.begin(*more)
        first_step_s = life.seconds_to_first_line()
        assert life.ends_within(120)
        life.require_nothing_lost()
        return first_step_s

    def saves_due_before(self, step: int) -> list[int]:
        """The steps before `step` that are followed by a save: by the interval, or as the best so far."""
        assert self.truth is not None
        assert self.save_interval is not None
        due, best = set(range(self.save_interval, step, self.save_interval)), math.inf
        for (kind, at), line in sorted(self.truth.items()):
            if kind == "evaluated" and float.fromhex(line["val_loss"]) < best:
                best = float.fromhex(line["val_loss"])
                due.add(at)
        return sorted(at for at in due if at < step)


class Life:
    """One process of a run, from its start to its end."""

    def __init__(self, run: Run, more: tuple[object, ...]) -> None:
        self._run = run
        self._first_step = run.newest_step()
        self._lines_before = len(run.log())
        self._leftovers_before = run.leftovers()
        self._told = run.folder / f"{run.name}.told"
        self._prose = run.folder / f"{run.name}.prose"
        for path in (self._told, self._prose):
            path.write_bytes(b"")  # else a life that ends before it opens them tells what the one before told
        self._process = run.forks.start(
            *("train", *run.settings, "--model-name", run.name, "--json", *more),
            cwd=run.folder,
            streams=(self._told, self._prose),
            launched=run.launched,
        )
        self._code: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it came to its own end."""
        return self._code == 0

    @property
    def has_stepped(self) -> bool:
        """Whether it did a step and logged it."""
        return len(self._run.log()) > self._lines_before

    def seconds_to_first_line(self) -> float:
        """Wait until it logs something, or ends."""
        started_s = time.monotonic()
        while len(self._run.log()) == self._lines_before and not self.ends_within(0):
            time.sleep(0.001)
        return time.monotonic() - started_s

    def ends_within(self, seconds: float) -> bool:
        """Let it live so long."""
        if self._code is None:
            self._code = self._run.forks.wait(self._process, seconds)
        return self._code is not None

    def kill(self) -> bool:
        """Kill -9, the whole group where there is a launcher; whether that came before its own end."""
        (os.killpg if self._run.launched else os.kill)(self._process, signal.SIGKILL)
        self._code = self._run.forks.wait(self._process)
        return self._code == -signal.SIGKILL

    def died_in_a_save(self) -> bool:
        """Whether it left a state that it was writing."""
        new = self._run.leftovers() - self._leftovers_before
        return any(name.startswith(".tmp-step-") for name in new)

    def lost_steps(self) -> int:
        """Steps that were logged, and have to be done again."""
        return max(0, self._last_step() - self._run.newest_step())

    def require_nothing_lost(self) -> None:
        """What this life began with, told and left is what an unbroken run has there."""
        assert self._code in {0, -signal.SIGKILL}, self._prose.read_text()
        told = whole_lines(self._told)
        starts = [line["start_step"] for line in told if line["event"] == "planned"]
        assert starts == [self._first_step] or (not starts and not self.has_ended)
        lines = self._run.log()[self._lines_before :]
        steps = [line["step"] for line in lines if line["event"] == "step"]
        assert steps == list(range(self._first_step + 1, self._first_step + 1 + len(steps)))
        if self._run.truth is not None:
            for key, values in map(_link, lines):
                assert values == self._run.truth[key], f"{key} has other bits"
        self._require_saved(told)

    def _require_saved(self, told: list[dict[str, Any]]) -> None:
        """What was told as saved stays saved; and of the saves that were due, all but the last two are done.

        The next save begins when the one before is whole, and a step is logged only after the save
        that was due before it has begun. So the last due one may be unfinished, and no other.
        """
        newest = self._run.newest_step()
        promised = [self._first_step, *(line["step"] for line in told if line["event"] == "saved")]
        assert newest >= max(promised)
        if self._run.save_interval is not None:
            begun = [at for at in self._run.saves_due_before(self._last_step()) if at > self._first_step]
            assert newest >= (begun[-2] if len(begun) > 1 else self._first_step)
            assert self.lost_steps() <= 2 * self._run.save_interval

    def _last_step(self) -> int:
        lines = self._run.log()[self._lines_before :]
        return max((line["step"] for line in lines), default=self._first_step)


def require_unbroken(run: Run, unbroken: Run) -> None:
    """The run was stopped, and nothing of it was done twice."""
    assert run.chain() == unbroken.chain()
    require_same_end(unbroken, run)


def require_same_end(one: Run, other: Run) -> None:
    """Both runs are at the same step with the same bits, and leave nothing else behind."""
    step = one.newest_step()
    assert other.newest_step() == step
    ends = [run.directory.path / f"step-{step:08d}" for run in (one, other)]
    for name in ("config.json", "tokenizer.json", "model.safetensors", "optimizer.safetensors"):
        assert ends[0].joinpath(name).read_bytes() == ends[1].joinpath(name).read_bytes(), name
    states = [json.loads(end.joinpath("training_state.json").read_bytes()) for end in ends]
    assert states[0] | {"model_name": ""} == states[1] | {"model_name": ""}
    assert {key for key, _ in map(_link, other.log())} == set(one.chain())
    assert other.directory.metrics_path.read_bytes().endswith(b"\n")
    assert not other.leftovers()


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of JSON that have their end."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _link(line: dict[str, Any]) -> tuple[tuple[str, int], dict[str, Any]]:
    values = {name: value.hex() if isinstance(value, float) else value for name, value in line.items()}
    return (line["event"], line["step"]), {name: value for name, value in values.items() if name not in _TIMES}


def _refuse(warning: str) -> None:
    raise AssertionError(warning)
