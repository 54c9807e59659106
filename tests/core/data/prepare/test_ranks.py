"""Machines that share the work, without knowing of each other, make the dataset that one machine makes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mypt.core.data.prepare.verb import prepare_dataset
from mypt.errors import DataError, LockedError, UsageError
from mypt.events import RankFinished
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from preparation import careless_disk, fingerprints, listing, prepared, small_units, write_jsonl

TEXTS = [f"some words of document {number}, " * 4 for number in range(100)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    small_units(monkeypatch, 2000)
    careless_disk(monkeypatch)
    monkeypatch.setattr("mypt.core.data.prepare.jobs._TOLD_EVERY_S", 0.0)


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS * 2)
    return DataConfig(input_files=(str(path),), tokenization="byte", deduplicate=True)


def options(**changes: Any) -> PrepareConfig:
    return PrepareConfig(tokens_per_shard=2000, workers=1, **changes)


def run_ranks(config: DataConfig, out_dir: Path, ranks: Sequence[int], world: int) -> list[int]:
    # Each rank's number of units.
    units: list[int] = []
    for rank in ranks:
        last = list(prepare_dataset(config, out_dir, options(rank=rank, world=world)))[-1]
        assert isinstance(last, RankFinished)
        units.append(last.units)
    return units


@pytest.mark.parametrize("ranks", [[0, 1, 2], [2, 0, 1], [1, 1, 2, 0, 1]])
def test_ranks_in_any_order_and_again_make_the_dataset_of_one(
    tmp_path: Path, config: DataConfig, ranks: list[int]
) -> None:
    prepared(config, tmp_path / "truth", 2000)
    units = run_ranks(config, tmp_path / "data", ranks, 3)
    assert max(units) - min(units) <= 1
    assert not (tmp_path / "data").exists()
    list(prepare_dataset(config, tmp_path / "data", options(finish=True)))
    assert fingerprints(tmp_path / "data") == fingerprints(tmp_path / "truth")
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "truth", "data"}


def test_more_ranks_than_units_is_no_mistake(tmp_path: Path, config: DataConfig) -> None:
    units = run_ranks(config, tmp_path / "data", range(40), 40)
    assert set(units) == {0, 1}
    list(prepare_dataset(DataConfig(), tmp_path / "data", options(finish=True)))
    assert (tmp_path / "data/dataset.json").is_file()


def test_a_missing_rank_is_noticed_and_nothing_is_lost(tmp_path: Path, config: DataConfig) -> None:
    run_ranks(config, tmp_path / "data", [0, 2], 3)
    before = listing(tmp_path)
    with pytest.raises(DataError, match=r"\d+ of \d+ units are not finished \(the first is 1\)") as caught:
        list(prepare_dataset(config, tmp_path / "data", options(finish=True)))
    assert "--finish" in caught.value.hint
    assert listing(tmp_path) == before


def test_finishing_before_any_unit_is_done_throws_nothing_away(tmp_path: Path, config: DataConfig) -> None:
    preparing = prepare_dataset(config, tmp_path / "data", options(rank=0, world=2))
    next(iter(preparing))
    before = listing(tmp_path)
    with pytest.raises(LockedError):
        list(prepare_dataset(config, tmp_path / "data", options(finish=True)))
    assert listing(tmp_path) == before
    list(preparing)
    run_ranks(config, tmp_path / "data", [1], 2)
    list(prepare_dataset(config, tmp_path / "data", options(finish=True)))


def test_finishing_what_is_not_there_is_refused(tmp_path: Path, config: DataConfig) -> None:
    with pytest.raises(UsageError, match="nothing to finish"):
        list(prepare_dataset(config, tmp_path / "data", options(finish=True)))
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl"}


def test_ranks_work_at_once_but_no_rank_twice(tmp_path: Path, config: DataConfig) -> None:
    preparing = [iter(prepare_dataset(config, tmp_path / "data", options(rank=rank, world=2))) for rank in (0, 1)]
    for one in preparing:
        next(one)
    with pytest.raises(LockedError):
        list(prepare_dataset(config, tmp_path / "data", options(rank=1, world=2)))
    for one in preparing:
        list(one)
    list(prepare_dataset(config, tmp_path / "data", options(finish=True)))
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "data"}


def test_a_rank_of_another_plan_is_refused(tmp_path: Path, config: DataConfig) -> None:
    run_ranks(config, tmp_path / "data", [0], 2)
    other = config.model_copy(update={"deduplicate": False})
    with pytest.raises(DataError, match="another deduplicate"):
        list(prepare_dataset(other, tmp_path / "data", options(rank=1, world=2)))


def test_what_a_killed_finish_left_half_written_is_not_published(tmp_path: Path, config: DataConfig) -> None:
    prepared(config, tmp_path / "truth", 2000)
    run_ranks(config, tmp_path / "data", [0, 1], 2)
    (tmp_path / "data.partial/dataset/train/shard-00000.bin.99.tmp").write_text("half")
    list(prepare_dataset(config, tmp_path / "data", options(finish=True)))
    assert fingerprints(tmp_path / "data") == fingerprints(tmp_path / "truth")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 0}, "--rank and --world belong together"),
        ({"world": 2}, "--rank and --world belong together"),
        ({"rank": 2, "world": 2}, "ranks of a world of 2 are 0 to 1"),
        ({"rank": 0, "world": 2, "finish": True}, "leave --rank and --world out"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    tmp_path: Path, config: DataConfig, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        list(prepare_dataset(config, tmp_path / "data", options(**changes)))


@pytest.mark.parametrize(
    ("update", "told"), [({"tokenization": "char"}, "char"), ({"input_files": ("-",)}, "standard")]
)
def test_what_one_rank_cannot_do_is_refused(
    tmp_path: Path, config: DataConfig, update: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        list(prepare_dataset(config.model_copy(update=update), tmp_path / "data", options(rank=0, world=2)))


def test_a_rank_does_not_throw_the_work_of_others_away(tmp_path: Path, config: DataConfig) -> None:
    with pytest.raises(UsageError, match="--fresh is for one machine"):
        list(prepare_dataset(config, tmp_path / "data", options(rank=0, world=2, fresh=True)))
