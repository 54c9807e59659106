"""A training that is asked to stop: where it runs, what it leaves, and how it goes on."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from forking import Forks
from lives import Run, require_unbroken

TRAIN = (
    *("train", "tale.txt", "--tokenization", "char", "--n-layer", "2", "--n-head", "2", "--n-embd", "64"),
    *("--block-size", "32", "--batch-size", "4", "--dropout", "0.1", "--max-iters", "90", "--eval-interval", "40"),
    *("--eval-iters", "100", "--save-interval", "20"),
)
LONG_STEPS = ("--batch-size", "200000", "--micro-batch-size", "500", "--max-iters", "1000", "--compile", "off")


@dataclass
class Place:
    """A folder with a text, where commands are started."""

    forks: Forks
    folder: Path
    prose: Path = field(init=False)
    data: Path = field(init=False)

    def __post_init__(self) -> None:
        self.prose, self.data = self.folder / "prose", self.folder / "data.out"
        for path in (self.prose, self.data):
            path.touch()

    def start(self, *arguments: object, ignored: tuple[signal.Signals, ...] = ()) -> int:
        return self.forks.start(*arguments, cwd=self.folder, streams=(self.data, self.prose), ignored=ignored)

    def run(self, name: str) -> Run:
        """What a model's folder holds."""
        return Run(self.forks, self.folder, name, ())

    def train_to_the_end(self, name: str) -> Run:
        assert self.forks.wait(self.start(*TRAIN, "--model-name", name)) == 0, self.prose.read_text()
        return self.run(name)

    def wait_until(self, condition: Callable[[], bool], process: int) -> None:
        deadline_s = time.monotonic() + 120  # no law: a busy machine may take long
        while not condition():
            assert self.forks.wait(process, 0) is None, f"ended too early: {self.prose.read_text()}"
            assert time.monotonic() < deadline_s
            time.sleep(0.0005)

    def logged(self, step: int, name: str = "stopped") -> Callable[[], bool]:
        """Whether a step is in the log."""
        path = self.folder / "checkpoints" / name / "metrics.jsonl"
        return lambda: path.exists() and f'"step": {step},' in path.read_text()

    def saving(self, name: str = "stopped") -> bool:
        """Whether a state is being written."""
        return any((self.folder / "checkpoints" / name).glob(".tmp-step-*"))


def require_stopped_well(
    place: Place, process: int, number: signal.Signals, truth: Run, *, was_evaluating: bool = False
) -> None:
    """The exit code is the signal's, the last step is saved, and the same command ends as the truth."""
    assert place.forks.wait(process) == 128 + number, place.prose.read_text()
    prose = place.prose.read_text()
    assert "Traceback" not in prose
    assert "Go on with:" in prose
    assert "--model-name stopped" in prose
    stopped = place.run("stopped")
    assert stopped.newest_step() == max(line["step"] for line in stopped.log())
    assert not (was_evaluating and any(line["event"] == "evaluated" for line in stopped.log()))
    require_unbroken(place.train_to_the_end("stopped"), truth)
