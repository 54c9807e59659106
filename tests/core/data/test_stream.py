"""A stream reads what lies in its shards, keeps documents apart, and names the shard that is damaged."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mypt.core.data.batches import NO_TARGET, Batches, FixedWindows
from mypt.core.data.files import OpenFiles
from mypt.core.data.opened import open_dataset
from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.shards import FileShard
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.durable import sha256_of
from mypt.errors import DataError
from mypt.records.dataset import DATASET_FILE, DatasetManifest, ShardInfo
from mypt.records.run import DataConfig
from mypt.records.tokenizer import TOKENIZER_FILE, ByteSpec


def write_shards(
    folder: Path, lengths: list[int], ends: list[int] | None = None, files: OpenFiles | None = None
) -> list[FileShard]:
    # Tokens that tell their own place; document ends in the shard they lie in, as preparation writes them.
    files, first, shards = files or OpenFiles(), 0, list[FileShard]()
    for number, length in enumerate(lengths):
        path = folder / f"{number}.bin"
        np.arange(first, first + length, dtype="<u2").tofile(path)
        own = None if ends is None else [end - first for end in ends if first < end <= first + length]
        if own is not None:
            np.array(own, dtype="<u8").tofile(path.with_suffix(".idx"))
        info = ShardInfo(path=path.name, dtype="uint16", tokens=length, documents=None if own is None else len(own))
        shards.append(FileShard(path, info, files))
        first += length
    return shards


@st.composite
def documents(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    # Tokens, where shards are cut, and where documents end; some end twice, some at a cut.
    count = draw(st.integers(2, 60))
    places = st.integers(0, count)
    cuts = sorted(draw(st.lists(places, max_size=4)))
    return count, cuts, sorted(draw(st.lists(st.one_of(places, st.sampled_from([*cuts, count])), max_size=15)))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiny texts have an epoch for every few positions.
    monkeypatch.setattr("mypt.core.data.mixture._BLOCK_SAMPLES", 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


def in_memory(count: int, cuts: list[int], ends: list[int]) -> TokenStream:
    shards, first = list[MemoryShard](), 0
    for part in np.split(np.arange(count, dtype=np.uint16), cuts):
        own = [end - first for end in ends if first < end <= first + part.size]
        shards.append(MemoryShard(part, np.array(own, dtype=np.int64)))
        first += part.size
    return TokenStream(shards)


# Documents.


@settings(deadline=None)
@given(documents(), st.data())
def test_documents_are_numbered_by_the_ends_before_each_token(
    text: tuple[int, list[int], list[int]], data: st.DataObject
) -> None:
    count, cuts, ends = text
    length = data.draw(st.integers(1, count))
    start = data.draw(st.integers(0, count - length))
    found = in_memory(count, cuts, ends).documents(np.array([start]), length)[0]
    passed = [len({end for end in ends if start < end <= place}) for place in range(start, start + length)]
    assert found.tolist() == passed


@settings(deadline=None, max_examples=40)
@given(documents(), st.integers(0, 2**60))
def test_batches_from_files_keep_the_same_documents_apart(
    folder: Path, text: tuple[int, list[int], list[int]], seed: int
) -> None:
    count, cuts, ends = text
    bounds = [0, *cuts, count]
    from_files = TokenStream(write_shards(folder, np.diff(bounds).tolist(), ends))
    from_files.require_documents()
    block_size = max(1, count // 3)
    for stream in (from_files, in_memory(count, cuts, ends)):
        inputs, targets, numbers = Batches(stream, block_size, seed, documents=True).at(3, 20)
        assert numbers is not None
        # A place where a document ends is one where the next token is another's: nothing to learn there.
        at_an_end = np.isin(inputs + 1, ends)
        assert np.array_equal(targets, np.where(at_an_end, NO_TARGET, inputs + 1))
        # Numbers go up exactly behind the ends.
        assert np.array_equal(np.diff(numbers, axis=1), at_an_end[:, :-1].astype(np.int64))


@pytest.mark.parametrize("count", [511, 512, 513, 5000])
def test_ends_are_found_in_long_lists(tmp_path: Path, count: int) -> None:
    ends = np.cumsum(np.random.default_rng(count).integers(1, 4, size=count))
    total = int(ends[-1])
    (shard,) = write_shards(tmp_path, [total], ends.tolist())
    for low, high in [(0, total), (0, 1), (total, total), (total // 2, total // 2 + 50), (7, total - 7)]:
        assert np.array_equal(shard.ends_between(low, high), ends[(ends >= low) & (ends <= high)])


def test_without_the_mask_nothing_is_left_out() -> None:
    stream = in_memory(50, [20], [10, 20, 33])
    for batch in (Batches(stream, 8, 1).at(0, 9), FixedWindows(stream, 8, 5, 1).batch(0, 5)):
        assert batch.documents_BT is None
        assert np.array_equal(batch.targets_BT, batch.inputs_BT + 1)


def test_prepared_documents_are_the_files(tmp_path: Path) -> None:
    texts = [letter * 7 * (number + 1) for number, letter in enumerate("abcdefgh")]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    config = DataConfig(input_files=(str(tmp_path),), tokenization="byte", val_fraction=0)
    list(prepare_dataset(config, tmp_path / "data"))
    stream = open_dataset(tmp_path / "data").train
    stream.require_documents()
    row, numbers = stream.gather(np.array([0]), len(stream))[0], stream.documents(np.array([0]), len(stream))[0]
    pieces = [bytes(row[numbers == number][:-1].tolist()).decode() for number in range(numbers.max() + 1)]
    assert sorted(pieces) == sorted(texts)


def test_shards_that_do_not_tell_their_documents_are_named(tmp_path: Path) -> None:
    known, unknown = write_shards(tmp_path, [9], [4, 9]), write_shards(tmp_path, [9])
    TokenStream(known).require_documents()
    with pytest.raises(DataError, match=r"0\.bin: where its documents end is not known"):
        TokenStream(unknown).require_documents()
    with pytest.raises(DataError, match="where its documents end is not known"):
        TokenStream([MemoryShard(np.arange(5, dtype=np.uint16))]).require_documents()


@pytest.mark.parametrize(
    ("damage", "told"), [("missing", "is missing"), ("short", "has 8 bytes, the manifest says 16")]
)
def test_a_damaged_list_of_documents_is_named_before_training(tmp_path: Path, damage: str, told: str) -> None:
    stream = TokenStream(write_shards(tmp_path, [9], [4, 9]))
    index = tmp_path / "0.idx"
    index.unlink() if damage == "missing" else index.write_bytes(index.read_bytes()[:8])
    with pytest.raises(DataError, match=rf"0\.idx: this list of document ends {told}"):
        stream.require_documents()


# Files.


def test_many_shards_need_few_open_files(tmp_path: Path) -> None:
    class Counted(OpenFiles):
        most = 0

        def read(self, path: Path, offset_bytes: int, into: NDArray[np.unsignedinteger]) -> None:
            super().read(path, offset_bytes, into)
            self.most = max(self.most, len(self._files))

    files = Counted(limit=3)
    stream = TokenStream(write_shards(tmp_path, [10] * 20, files=files))
    starts = np.random.default_rng(0).integers(0, 150, size=200)
    assert np.array_equal(stream.gather(starts, 50), starts[:, None] + np.arange(50))
    assert files.most == 3


def test_an_id_beyond_the_vocabulary_is_named_with_its_place(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [100, 100])
    assert TokenStream(shards, vocab_size=200).gather(np.array([0, 90]), 110).max() == 199
    with pytest.raises(DataError, match=r"1\.bin: id 150 at token 50 is beyond the tokenizer's 150 ids"):
        TokenStream(shards, vocab_size=150).gather(np.array([0, 90]), 110)


@pytest.mark.parametrize("damage", ["shorter", "gone"])
def test_a_shard_that_breaks_while_it_is_used_is_named(tmp_path: Path, damage: str) -> None:
    stream = TokenStream(write_shards(tmp_path, [100]))
    path = tmp_path / "0.bin"
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"0\.bin: "):
        stream.gather(np.array([60]), 20)


READ_ALL = """
import resource, sys
from pathlib import Path
import numpy as np
from mypt.core.data.batches import Batches
from mypt.core.data.opened import open_dataset

def resident():
    # On Linux ru_maxrss also knows the size of the process that started this one.
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

before = resident()
batches = Batches(open_dataset(Path(sys.argv[1])).train, 16384, seed=1)
for position in range(0, batches.windows_per_epoch, 16):
    batches.at(position, 16)
print(batches.windows_per_epoch * 16384, resident() - before, resident())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_reading_500_million_tokens_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    shards = list[ShardInfo]()
    for number in range(5):
        path = tmp_path / f"train/{number}.bin"
        with path.open("wb") as file:
            file.truncate(2 * 10**8)  # a hole: no disk is used
        shards.append(ShardInfo(path=f"train/{number}.bin", dtype="uint16", tokens=10**8))
    ByteSpec().write(tmp_path / TOKENIZER_FILE)
    DatasetManifest(
        mypt_version="0", tokenizer_sha256=sha256_of(tmp_path / TOKENIZER_FILE), vocab_size=257, end_of_text_id=256,
        split_by="given", sources=(), train=tuple(shards), val=(),
    ).sealed().write(tmp_path / DATASET_FILE)  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    tokens, grown_bytes, peak_bytes = map(int, run.stdout.split())
    assert tokens > 499_900_000
    assert grown_bytes < 64 * 2**20
    assert peak_bytes < 500 * 10**6
