"""A signal at any moment: the step is saved, the exit code tells the signal, and the same command goes on.

Before the first step there is nothing to save: then the program ends at once, and leaves nothing behind.
"""

import os
import signal
import time
from collections.abc import Callable

import pytest

from forking import ASKING, exit_code
from lives import Run, require_unbroken
from stopping import LONG_STEPS, TRAIN, Place, require_stopped_well
from support import tale

MOMENTS: dict[str, Callable[[Place], Callable[[], bool]]] = {
    "step": lambda place: place.logged(7),
    "evaluation": lambda place: place.logged(40),
    "save": lambda place: place.saving,
}


@pytest.mark.parametrize("number", ASKING)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    place: Place, truth: Run, moment: str, number: signal.Signals
) -> None:
    process = place.start(*TRAIN, "--model-name", "stopped")
    place.wait_until(MOMENTS[moment](place), process)
    os.kill(process, number)
    require_stopped_well(place, process, number, truth, was_evaluating=moment == "evaluation")


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_before_the_first_step_leaves_nothing(place: Place, number: signal.Signals) -> None:
    (place.folder / "long.txt").write_text(tale(6000) * 200, encoding="utf-8")
    process = place.start("train", "long.txt", "--tokenization", "char", "--model-name", "stopped")
    lock_owner = place.folder / "checkpoints" / ".stopped.lock-owner"
    place.wait_until(lock_owner.exists, process)
    time.sleep(0.05)
    os.kill(process, number)
    assert place.forks.wait(process, 60) == 128 + number
    assert "Traceback" not in place.prose.read_text()
    assert [path.name for path in (place.folder / "checkpoints").iterdir()] == [".stopped.lock"]


def test_two_interrupts_at_once_are_one_request(place: Place, truth: Run) -> None:
    process = place.start(*TRAIN, "--model-name", "stopped")
    place.wait_until(place.logged(7), process)
    for _ in range(2):
        os.kill(process, signal.SIGINT)
        time.sleep(0.01)
    require_stopped_well(place, process, signal.SIGINT, truth)


def test_more_signals_while_the_step_is_saved_do_no_harm(place: Place, truth: Run) -> None:
    process = place.start(*TRAIN, "--model-name", "stopped")
    place.wait_until(place.logged(7), process)
    os.kill(process, signal.SIGTERM)
    place.wait_until(lambda: "Finishing this step" in place.prose.read_text(), process)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
        os.kill(process, number)
    require_stopped_well(place, process, signal.SIGTERM, truth)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_leaves_a_long_step_at_once_and_loses_nothing(
    place: Place, truth: Run, first: signal.Signals
) -> None:
    process = place.start(*TRAIN, "--model-name", "stopped")
    place.wait_until(place.logged(7), process)
    os.kill(process, signal.SIGINT)
    assert place.forks.wait(process) == 130
    saved = place.run("stopped").newest_step()
    process = place.start(*TRAIN, *LONG_STEPS, "--model-name", "stopped")
    place.wait_until(lambda: f"from step {saved} " in place.prose.read_text(), process)
    time.sleep(0.5)
    os.kill(process, first)
    time.sleep(0.6)
    assert place.forks.wait(process, 0) is None
    started_s = time.monotonic()
    os.kill(process, signal.SIGINT)
    assert place.forks.wait(process, 60) == 130
    assert time.monotonic() - started_s < 5  # far from the end of the step
    assert place.run("stopped").newest_step() == saved
    require_unbroken(place.train_to_the_end("stopped"), truth)


def test_a_signal_that_the_caller_has_switched_off_stays_so(place: Place, truth: Run) -> None:
    process = place.start(*TRAIN, "--model-name", "stopped", ignored=(signal.SIGHUP, signal.SIGINT))
    place.wait_until(place.logged(7), process)
    os.kill(process, signal.SIGHUP)
    os.kill(process, signal.SIGINT)
    assert place.forks.wait(process) == 0
    require_unbroken(place.run("stopped"), truth)


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_ends_generate_without_a_word(place: Place, truth: Run, number: signal.Signals) -> None:
    root = truth.folder / "checkpoints"
    process = place.start("generate", "unbroken", "--checkpoint-dir", root, "--max-new-tokens", "1000000")
    place.wait_until(lambda: place.data.stat().st_size > 20, process)
    os.kill(process, number)
    assert exit_code(place.forks.wait(process, 60)) == 128 + number
    assert place.prose.read_text() == ""


@pytest.mark.long
def test_a_signal_ends_the_sample_of_quickstart(place: Place) -> None:
    process = place.start("quickstart", "--minutes", "0.02")
    place.wait_until(lambda: "It writes:" in place.prose.read_text(), process)
    os.kill(process, signal.SIGINT)
    assert place.forks.wait(process, 60) == 130
    told = place.prose.read_text()
    assert "Traceback" not in told
    assert "Next:" not in told
    assert place.run("quickstart").newest_step() > 0


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_ends_prepare_dataset_which_goes_on_later(place: Place, number: signal.Signals) -> None:
    (place.folder / "long.txt").write_text(tale(6000) * 60, encoding="utf-8")
    command = ("prepare-dataset", "long.txt", "--tokenization", "char", "--out-dir", "data", "--workers", "1")
    process = place.start(*command)
    place.wait_until(lambda: any(place.folder.glob("*data*/**/plan.json")), process)
    os.kill(process, number)
    assert place.forks.wait(process, 60) == 128 + number
    told = place.prose.read_text()
    assert "Stopped." in told
    assert "Traceback" not in told
    assert not (place.folder / "data").exists()
    assert place.forks.wait(place.start(*command)) == 0
    assert (place.folder / "data" / "dataset.json").is_file()
