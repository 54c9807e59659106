"""A packed dataset is the same dataset: unpacked at first use, checked on the way, readable by any zstd."""

import shutil
import struct
from pathlib import Path

import pytest
import zstandard

from mypt.core.data.cold import cold_path, compress_dataset, unpack_dataset
from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.report import report_dataset
from mypt.core.data.verify import verify_dataset
from mypt.errors import DataError
from mypt.events import DatasetCompressed, Verified
from mypt.records.dataset import ShardInfo, read_dataset_manifest
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from support import Mypt, tale


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """More than one frame a shard."""
    path = tmp_path / "tale.txt"
    path.write_text(tale(60_000))
    config = DataConfig(input_files=(str(path),), tokenization="byte")
    list(prepare_dataset(config, tmp_path / "data", PrepareConfig(tokens_per_shard=1_500_000, workers=1)))
    return tmp_path / "data"


def contents(dataset: Path) -> dict[str, bytes]:
    return {path.relative_to(dataset).as_posix(): path.read_bytes() for path in dataset.rglob("*") if path.is_file()}


def test_packing_and_unpacking_give_the_same_bytes(dataset: Path) -> None:
    before = contents(dataset)
    *_, last = compress_dataset(dataset)
    assert isinstance(last, DatasetCompressed)
    assert last.raw_bytes > 2 * last.packed_bytes
    assert not list(dataset.rglob("*.bin"))
    assert list(unpack_dataset(dataset))
    after = contents(dataset)
    assert {name: data for name, data in after.items() if not name.endswith(".zst")} == before
    assert not list(unpack_dataset(dataset)), "nothing is left to do"


def test_packing_twice_changes_nothing(dataset: Path) -> None:
    list(compress_dataset(dataset))
    once = contents(dataset)
    list(compress_dataset(dataset))
    assert contents(dataset) == once


def test_any_zstd_reads_it_and_its_frames_stand_alone(dataset: Path) -> None:
    raw = (dataset / "train/shard-00000.bin").read_bytes()
    list(compress_dataset(dataset))
    packed = cold_path(dataset / "train/shard-00000.bin").read_bytes()
    with zstandard.open(cold_path(dataset / "train/shard-00000.bin"), "rb") as file:
        assert file.read() == raw
    frames, flags, magic = struct.unpack("<IBI", packed[-9:])
    assert (flags, magic) == (0, 0x8F92EAB1)
    table = struct.iter_unpack("<II", packed[-9 - 8 * frames : -9])
    start, read = 0, b""
    for packed_bytes, raw_bytes in table:
        frame = zstandard.ZstdDecompressor().decompress(packed[start : start + packed_bytes], max_output_size=raw_bytes)
        start, read = start + packed_bytes, read + frame
    assert frames > 1
    assert read == raw


def test_a_damaged_shard_is_not_packed_and_stays(dataset: Path) -> None:
    shard = dataset / "train/shard-00000.bin"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 4
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-00000\.bin: is damaged"):
        list(compress_dataset(dataset))
    assert shard.read_bytes() == data
    assert not cold_path(shard).exists()


@pytest.mark.parametrize("place", [100, -1000])
def test_a_damaged_pack_is_refused_by_name_and_leaves_nothing_half(dataset: Path, place: int) -> None:
    list(compress_dataset(dataset))
    packed = cold_path(dataset / "train/shard-00000.bin")
    data = bytearray(packed.read_bytes())
    data[place] ^= 4
    packed.write_bytes(data)
    assert [Path(path).name for path in verified(dataset).damaged] == ["shard-00000.bin.zst"]
    with pytest.raises(DataError, match=r"shard-00000\.bin\.zst"):
        list(unpack_dataset(dataset))
    assert not (dataset / "train/shard-00000.bin").exists()
    assert not list(dataset.rglob("*.tmp"))


def verified(dataset: Path) -> Verified:
    last = list(verify_dataset(dataset))[-1]
    assert isinstance(last, Verified)
    return last


def test_a_packed_dataset_is_verified_and_reported(dataset: Path) -> None:
    raw = report_dataset(dataset)
    list(compress_dataset(dataset))
    assert not verified(dataset).damaged
    packed = report_dataset(dataset)
    assert packed.size_bytes < raw.size_bytes / 2
    assert packed.model_copy(update={"samples": raw.samples, "size_bytes": raw.size_bytes}) == raw


def test_training_on_a_packed_dataset_unpacks_it(mypt: Mypt, dataset: Path) -> None:
    shutil.copytree(dataset, dataset.with_name("raw"))
    run = mypt("compress", dataset)
    assert run.returncode == 0, run.stderr
    small = ("--n-layer", 1, "--n-head", 1, "--n-embd", 8, "--block-size", 8, "--batch-size", 1, "--max-iters", 2)
    losses: list[str] = []
    for name in ("data", "raw"):
        run = mypt("train", "--dataset-dir", dataset.with_name(name), "--model-name", name, *small, "--eval-iters", 1)
        assert run.returncode == 0, run.stderr
        losses.append(next(line for line in run.stderr.splitlines() if line.startswith("Done")).split(",")[0])
    assert losses[0] == losses[1]


def test_shards_of_others_are_not_packed(mypt: Mypt, tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano/train.bin").write_bytes(b"\1\0" * 500)
    assert mypt("import-dataset", "nano", "--out-dir", "imported").returncode == 0
    run = mypt("compress", "imported")
    assert run.returncode == 3
    assert "belong to another program" in run.stderr
    assert (tmp_path / "nano/train.bin").is_file()


def test_a_missing_shard_is_no_success(dataset: Path) -> None:
    (dataset / "train/shard-00000.bin").unlink()
    with pytest.raises(DataError, match=r"shard-00000\.bin: this shard is missing"):
        list(compress_dataset(dataset))


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_outside_of_the_dataset_is_neither_packed_nor_written(
    tmp_path: Path, dataset: Path, is_link: bool
) -> None:
    # What a stranger's manifest may name, without a hash that would be compared.
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.bin").write_bytes(b"0123")
    if is_link:
        (dataset / "link").symlink_to(outside)
    name = "link/mine.bin" if is_link else str(outside / "mine.bin")
    manifest = read_dataset_manifest(dataset)
    shard = ShardInfo(path=name, dtype="uint16", tokens=2)
    manifest.model_copy(update={"train": (shard,)}).sealed().write(dataset / "dataset.json")
    with pytest.raises(DataError, match="lies outside of its dataset"):
        list(compress_dataset(dataset))
    assert [path.name for path in outside.iterdir()] == ["mine.bin"]
    (outside / "mine.bin.zst").write_bytes(zstandard.compress(b"0123"))
    (outside / "mine.bin").unlink()
    with pytest.raises(DataError, match="lies outside of its dataset"):
        list(unpack_dataset(dataset))
    assert [path.name for path in outside.iterdir()] == ["mine.bin.zst"]
