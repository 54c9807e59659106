"""What was tried on this machine is kept for the same facts, and never in the way."""

from pathlib import Path

import pytest

from mypt.core.trials import cache_folder, find_trial, keep_trial, machine_facts
from mypt.records.trial import Trial

FACTS = {"processor": "one", "width": "64"}
TRIAL = Trial(question="bf16", facts=FACTS, usual_s=3.0, tried_s=1.5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is not there yet."""
    monkeypatch.setenv("MYPT_CACHE", str(tmp_path / "some" / "cache"))
    return tmp_path / "some" / "cache"


def test_a_trial_is_found_again_by_its_question_and_facts_alone() -> None:
    assert find_trial("bf16", FACTS) is None
    keep_trial(TRIAL)
    assert find_trial("bf16", FACTS) == TRIAL
    assert TRIAL.gain == 2
    assert find_trial("compiled", FACTS) is None
    for other in (FACTS | {"width": "128"}, FACTS | {"threads": "2"}, {"processor": "one"}):
        assert find_trial("bf16", other) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"question": "bf16"}', TRIAL.as_json().replace("1.5", "0")])
def test_a_broken_file_is_passed_over_and_replaced(cache: Path, content: str) -> None:
    keep_trial(TRIAL)
    [path] = [path for path in cache.rglob("*") if path.is_file()]
    path.write_text(content)
    assert find_trial("bf16", FACTS) is None
    keep_trial(TRIAL)
    assert find_trial("bf16", FACTS) == TRIAL


def test_a_file_with_the_facts_of_another_machine_is_no_answer(cache: Path) -> None:
    keep_trial(TRIAL)
    [path] = [path for path in cache.rglob("*") if path.is_file()]
    path.write_text(TRIAL.model_copy(update={"facts": FACTS | {"processor": "two"}}).as_json())
    assert find_trial("bf16", FACTS) is None


def test_without_a_place_to_write_nothing_is_kept_and_nothing_goes_wrong(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    keep_trial(TRIAL)
    assert find_trial("bf16", FACTS) is None


def test_the_folder_is_the_one_given_or_the_users_own(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("MYPT_CACHE")
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    assert "mypt" in cache_folder().parts
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache_folder().is_relative_to(tmp_path)


def test_the_facts_of_a_machine_are_the_same_twice_and_all_known() -> None:
    facts = machine_facts()
    assert facts == machine_facts()
    assert all(facts.values())
