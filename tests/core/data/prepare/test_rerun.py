"""What an earlier call left behind: gone on with, refused by name, or not there at all."""

import gc
import shutil
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest
from filelock import FileLock

from mypt.core.data.prepare.verb import prepare_dataset
from mypt.errors import DataError, LockedError, MyptError, UsageError
from mypt.events import Event, PreparationPlanned, ShardWritten, TextRead
from mypt.records.dataset import read_dataset_manifest
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from mypt.units import human_bytes
from preparation import careless_disk, fingerprints, listing, prepared, small_units, write_jsonl

TEXTS = [f"some words of document {number}, " * 4 for number in range(100)]
ONE = PrepareConfig(tokens_per_shard=2000, workers=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    small_units(monkeypatch, 2000)
    careless_disk(monkeypatch)
    # Tell progress after every batch, so that a test can stop there.
    monkeypatch.setattr("mypt.core.data.prepare.jobs._TOLD_EVERY_S", 0.0)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "texts"
    folder.mkdir()
    return [str(write_jsonl(folder / f"{number}.jsonl", TEXTS[number::2])) for number in range(2)]


def config_of(files: list[str], tokenization: str = "byte", val_fraction: float = 0.2) -> DataConfig:
    return DataConfig(input_files=tuple(files), tokenization=tokenization, val_fraction=val_fraction)


def begun(config: DataConfig, out_dir: Path, *, units: int = 3, options: PrepareConfig = ONE) -> Generator[Event]:
    # A preparation that has finished some units.
    preparing = prepare_dataset(config, out_dir, options)
    assert isinstance(preparing, Generator)
    partial = out_dir.with_name(f"{out_dir.name}.partial")
    assert any(len(list((partial / "units").glob("*.json"))) >= units for _ in preparing)
    assert not out_dir.exists()
    return preparing


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# What is taken.


@pytest.mark.parametrize("content", ["a file", "a folder with something in it", "a link"])
def test_a_taken_name_is_refused_and_nothing_changes(tmp_path: Path, files: list[str], content: str) -> None:
    out_dir = tmp_path / "data"
    if content == "a file":
        out_dir.write_text(content)
    elif content == "a link":
        out_dir.symlink_to(tmp_path / "nowhere")
    else:
        out_dir.mkdir()
        (out_dir / "mine.txt").write_text(content)
    before = listing(tmp_path)
    with pytest.raises(DataError, match="nothing was changed"):
        list(prepare_dataset(config_of(files), out_dir, ONE))
    assert listing(tmp_path) == before


def test_an_empty_folder_is_a_free_name(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "data").mkdir()
    assert prepared(config_of(files), tmp_path / "data").documents == 100


@pytest.mark.parametrize("name", [".", "../data", "..", "/"])
def test_the_folder_one_stands_in_is_refused(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(DataError, match="this folder cannot become a dataset"):
        list(prepare_dataset(config_of(files), Path(name), ONE))
    assert names_in(tmp_path) == {"texts", "data"}


def test_a_folder_of_someone_else_beside_the_dataset_is_kept(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "data.partial").mkdir()
    (tmp_path / "data.partial" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"data\.partial.*'mine\.txt', which is not ours"):
        list(prepare_dataset(config_of(files), tmp_path / "data", ONE))
    assert (tmp_path / "data.partial" / "mine.txt").read_text() == "mine"


def test_a_second_command_at_once_is_refused_and_the_first_goes_on(tmp_path: Path, files: list[str]) -> None:
    first = begun(config_of(files), tmp_path / "data")
    with pytest.raises(LockedError, match="another command is working on this dataset"):
        list(prepare_dataset(config_of(files), tmp_path / "data", ONE))
    list(first)
    assert read_dataset_manifest(tmp_path / "data").documents == 100
    assert names_in(tmp_path) == {"texts", "data"}


def test_a_lock_without_a_holder_is_no_obstacle(tmp_path: Path, files: list[str]) -> None:
    lock = FileLock(tmp_path / ".data.partial.lock")
    lock.acquire()
    lock.release()
    Path(lock.lock_file).touch()
    prepared(config_of(files), tmp_path / "data")
    assert names_in(tmp_path) == {"texts", "data"}


# What is not begun leaves nothing.


@pytest.mark.parametrize("tokenization", ["gpt2", "char", "byte"])
def test_text_without_a_token_is_refused_and_nothing_is_left(tmp_path: Path, tokenization: str) -> None:
    (tmp_path / "void.txt").write_text("")
    with pytest.raises(DataError, match="empty"):
        list(prepare_dataset(config_of([str(tmp_path / "void.txt")], tokenization), tmp_path / "data", ONE))
    assert names_in(tmp_path) == {"void.txt"}


@pytest.mark.parametrize("tokenization", ["char", "byte"])
def test_text_that_is_broken_at_once_leaves_nothing(tmp_path: Path, tokenization: str) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a\.txt: not valid UTF-8 at byte 0"):
        list(prepare_dataset(config_of([str(tmp_path / "a.txt")], tokenization), tmp_path / "data", ONE))
    assert names_in(tmp_path) == {"a.txt"}


def test_char_and_standard_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="standard input can be read once"):
        list(prepare_dataset(config_of(["-"], "char"), tmp_path / "data", ONE))
    assert names_in(tmp_path) == set()


def free_disk(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free_bytes)

    def disk_usage(_path: Path) -> object:
        return usage

    monkeypatch.setattr("mypt.core.data.prepare.planning.shutil.disk_usage", disk_usage)


def test_a_disk_that_is_too_small_is_refused_with_both_sizes(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free_disk(monkeypatch, 9999)
    with pytest.raises(DataError, match=f"{human_bytes(9999)} free, the dataset needs about .* nothing was written"):
        list(prepare_dataset(config_of(files), tmp_path / "data", ONE))
    assert names_in(tmp_path) == {"texts"}


def test_what_is_on_the_disk_already_needs_no_room_again(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(config_of(files), tmp_path / "data", units=6).close()
    # Two shards in flight, and a little.
    free_disk(monkeypatch, 2 * 2000 * 2 + 5000)
    assert len(list(prepare_dataset(config_of(files), tmp_path / "data", ONE))) > 1


# What is begun is gone on with.


def test_a_preparation_put_down_goes_on_where_it_was(tmp_path: Path, files: list[str]) -> None:
    prepared(config_of(files), tmp_path / "truth", 2000)
    begun(config_of(files), tmp_path / "data").close()
    units = {path: path.stat().st_mtime_ns for path in (tmp_path / "data.partial/units").iterdir()}
    events = prepare_dataset(config_of(files), tmp_path / "data", ONE)
    for event in events:
        if isinstance(event, PreparationPlanned):
            assert event.finished_units >= 3
        if isinstance(event, TextRead):
            assert {path: path.stat().st_mtime_ns for path in units} == units
    assert fingerprints(tmp_path / "data") == fingerprints(tmp_path / "truth")
    assert names_in(tmp_path) == {"texts", "truth", "data"}


def test_shards_that_are_finished_are_not_written_again(tmp_path: Path, files: list[str]) -> None:
    preparing = prepare_dataset(config_of(files), tmp_path / "data", ONE)
    assert isinstance(preparing, Generator)
    first = next(event for event in preparing if isinstance(event, ShardWritten))
    preparing.close()
    written = [e.path for e in prepare_dataset(config_of(files), tmp_path / "data", ONE) if isinstance(e, ShardWritten)]
    assert first.path not in written
    shards = read_dataset_manifest(tmp_path / "data")
    assert {first.path, *written} == {shard.path for shard in (*shards.train, *shards.val)}


def test_broken_text_keeps_what_was_finished_before_it(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A sample of the first unit alone does not see it.
    monkeypatch.setattr("mypt.core.data.prepare.planning._SAMPLED_UNITS", 1)
    broken = write_jsonl(tmp_path / "texts" / "z.jsonl", ["fine"])
    whole = broken.read_bytes()
    broken.write_bytes(b"\xff" * len(whole))
    with pytest.raises(DataError, match=r"z\.jsonl: not valid UTF-8 at byte 0"):
        list(prepare_dataset(config_of([*files, str(broken)]), tmp_path / "data", ONE))
    assert not (tmp_path / "data").exists()
    # Mended, the file is another one: what was finished belongs to another plan.
    broken.write_bytes(whole)
    with pytest.raises(DataError, match=r"unfinished dataset of other files \(.*z\.jsonl\)") as caught:
        list(prepare_dataset(config_of([*files, str(broken)]), tmp_path / "data", ONE))
    assert "--fresh" in caught.value.hint
    fresh = ONE.model_copy(update={"fresh": True})
    list(prepare_dataset(config_of([*files, str(broken)]), tmp_path / "data", fresh))
    assert read_dataset_manifest(tmp_path / "data").documents == 101


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"val_fraction": 0.3}, "another val_fraction"),
        ({"tokenization": "gpt2"}, "another tokenization, tokenizer_sha256"),
        ({"deduplicate": True, "normalize": ("nfc",)}, "another normalize, deduplicate"),
    ],
)
def test_another_plan_is_refused_by_what_differs(
    tmp_path: Path, files: list[str], change: dict[str, object], told: str
) -> None:
    begun(config_of(files), tmp_path / "data").close()
    before = listing(tmp_path)
    with pytest.raises(DataError, match=f"holds an unfinished dataset of {told}"):
        list(prepare_dataset(config_of(files).model_copy(update=change), tmp_path / "data", ONE))
    with pytest.raises(DataError, match="another tokens_per_shard"):
        list(prepare_dataset(config_of(files), tmp_path / "data", PrepareConfig(workers=1)))
    assert listing(tmp_path) == before


def test_fresh_begins_again(tmp_path: Path, files: list[str]) -> None:
    begun(config_of(files), tmp_path / "data").close()
    fresh = PrepareConfig(workers=1, fresh=True)
    events = list(prepare_dataset(config_of(files, val_fraction=0.5), tmp_path / "data", fresh))
    assert [event.finished_units for event in events if isinstance(event, PreparationPlanned)] == [0]
    assert names_in(tmp_path) == {"texts", "data"}


def test_files_that_a_dead_process_left_half_written_are_thrown_away(tmp_path: Path, files: list[str]) -> None:
    prepared(config_of(files), tmp_path / "truth", 2000)
    begun(config_of(files), tmp_path / "data").close()
    for place in ("units/000009.train.bin.99.tmp", "dataset/train/shard-00000.bin.99.tmp", "train.spill-0.99.tmp"):
        (tmp_path / "data.partial" / place).write_text("half")
    # A result without its end, as a power cut leaves it.
    (tmp_path / "data.partial/units/000000.json").write_text("")
    list(prepare_dataset(config_of(files), tmp_path / "data", ONE))
    assert fingerprints(tmp_path / "data") == fingerprints(tmp_path / "truth")


def test_a_dataset_that_has_its_name_only_needs_clearing_away(tmp_path: Path, files: list[str]) -> None:
    begun(config_of(files), tmp_path / "data").close()
    shutil.copytree(tmp_path / "data.partial", tmp_path / "rest")
    list(prepare_dataset(config_of(files), tmp_path / "data", ONE))
    before = fingerprints(tmp_path / "data")
    shutil.rmtree(tmp_path / "rest" / "dataset")
    (tmp_path / "rest").rename(tmp_path / "data.partial")
    list(prepare_dataset(config_of(files), tmp_path / "data", ONE))
    assert fingerprints(tmp_path / "data") == before
    assert names_in(tmp_path) == {"texts", "data"}
    with pytest.raises(MyptError, match="already there"):
        list(prepare_dataset(config_of(files), tmp_path / "data", ONE))


def test_a_preparation_put_down_leaves_no_file_open(tmp_path: Path, files: list[str]) -> None:
    # An open file cannot be removed everywhere.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        preparing = begun(config_of(files), tmp_path / "data")
        preparing.close()
        del preparing
        gc.collect()
    assert [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)] == []
