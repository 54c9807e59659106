"""Text of any kind through the real commands: a verdict that names the file, or tokens that are the text again."""

import gzip
import json
import lzma
import os
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import run_commands
from mypt.core.data.memory import read_into_memory
from mypt.core.data.opened import open_dataset
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError, MemoryShortageError
from mypt.events import TextRead
from mypt.records.run import DataConfig, RunConfig
from preparation import COMPRESSIONS, careless_disk, ids_of, prepared, small_units, texts_of
from support import VARIED, tale

# All of it: minutes. Otherwise enough to see whether memory or time grow with it.
CHAOS = os.environ.get("MYPT_CHAOS") == "1"
LARGE_BYTES = (200 if CHAOS else 24) * 10**6
LONG_RUN_CHARS = 10**6 if CHAOS else 200_000
PREPARE = ("prepare-dataset", "--tokenization", "byte", "--workers", "1")
SIZES = (
    *("--tokenization", "byte", "--set", "model.n_layer=1", "--n-head", "1", "--n-embd", "8", "--block-size", "16"),
    *("--batch-size", "2", "--max-iters", "2", "--eval-iters", "1", "--fresh"),
)
TEXT = "some words of a text, and more. " * 200


def three(name: str, number: int) -> list[list[str]]:
    """The three commands that read text."""
    return [
        ["train", "--model-name", f"m{number}", *SIZES, "--input-file", name],
        [*PREPARE, "--out-dir", f"d{number}", "--input-files", name],
        ["tokenizer", "train", "--out", f"t{number}.json", "--kind", "char", "--input-files", name],
    ]


def records(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def surrogate(order: str) -> bytes:
    return f"\ufeff{TEXT}".encode(order)


# What each file holds, and what is said of it; None: it is taken.
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "the t"),
    "utf-16.txt": (TEXT.encode("utf-16"), "byte 0 (0xff); it looks like UTF-16"),
    "utf-16-be.txt": (surrogate("utf-16-be"), "byte 0 (0xfe); it looks like UTF-16"),
    "utf-32.txt": (TEXT.encode("utf-32"), "byte 0 (0xff); it looks like UTF-32"),
    "no-mark-16-le.txt": (TEXT.encode("utf-16-le"), "is full of NULs; it looks like UTF-16LE"),
    "no-mark-16-be.txt": (TEXT.encode("utf-16-be"), "is full of NULs; it looks like UTF-16BE"),
    "no-mark-32-le.txt": (TEXT.encode("utf-32-le"), "is full of NULs; it looks like UTF-32LE"),
    "no-mark-32-be.jsonl": (records(json.dumps({"text": TEXT})).decode().encode("utf-32-be"), "like UTF-32BE"),
    "binary.txt": (bytes(range(256)) * 20, "not valid UTF-8 at byte 128 (0x80)"),
    "late.txt": (TEXT.encode() + b"\xff", f"at byte {len(TEXT):,} (0xff)"),
    "half.jsonl": (records('{"text": "\\ud800"}'), "line 1: half a surrogate pair"),
    "deep.jsonl": (records('{"text": "fine"}', '{"text": "a", "x": ' + "[" * 10**5), "line 2: not valid JSON (nested"),
    "number.jsonl": (records('{"text": "a", "x": ' + "9" * 10**5 + "}"), "not valid JSON (a number of thousands"),
    "numbers.jsonl": (records('{"text": 1e999}'), "line 1: the field 'text' holds float"),
    "cut.txt.gz": (gzip.compress(TEXT.encode())[:-9], "cannot read it"),
    "more.txt.gz": (gzip.compress(TEXT.encode()) + b"more", "cannot read it"),
    "more.txt.xz": (lzma.compress(TEXT.encode()) + b"more", "cannot read it"),
    "more.txt.zst": (zstandard.compress(TEXT.encode()) + b"more", "cannot read it"),
    "twice.txt.gz": (gzip.compress(gzip.compress(TEXT.encode())), "it looks like a packed file"),
    "packed.txt": (zstandard.compress(TEXT.encode()), "it looks like a packed file"),
}
TAKEN: dict[str, bytes] = {
    "mark.txt": b"\xef\xbb\xbf" + TEXT.encode(),
    "nul.txt": bytes(5000),
    "some-nuls.txt": (TEXT + "\0\0" + TEXT).encode(),
    "cr.txt": b"a\rb\r\nc\n\r" * 200,
    "breaks.txt": "a\u2028b\x85c\x1cd\x0ce\u2029".encode() * 200,
    "special.txt": b"<|endoftext|>" * 300,
    "zeros.txt.gz": gzip.compress(TEXT.encode()) + bytes(512),
    "zeros.txt.xz": lzma.compress(TEXT.encode()) + bytes(8) + lzma.compress(TEXT.encode()),
    "with space.txt": TEXT.encode(),
    "with\nline.txt": TEXT.encode(),
    "-": TEXT.encode(),
    "--": TEXT.encode(),
    "--out-dir": TEXT.encode(),
    "$(touch canary).txt": TEXT.encode(),
    "[a-z]*.txt": TEXT.encode(),
    "double.jsonl": records('{"text": "not this", "text": "' + TEXT + '"}'),
}


def test_what_is_no_text_is_refused_by_every_command(tmp_path: Path) -> None:
    for name, (content, _) in REFUSED.items():
        (tmp_path / name).write_bytes(content)
    names = [name for name in REFUSED for _ in range(3)]
    results = run_commands(tmp_path, [line for n, name in enumerate(REFUSED) for line in three(name, n)])
    for name, told in zip(names, results, strict=True):
        assert told.returncode == 3, told
        assert REFUSED[name][1] in told.stderr, told
        assert name in told.stderr or name == "empty.txt", told
        assert told.stderr.count("Error: ") == 1, told
    assert not list(tmp_path.glob("d*/dataset.json"))
    assert not list(tmp_path.glob("checkpoints/*/step-*"))


def test_what_is_taken_comes_back_byte_by_byte(tmp_path: Path) -> None:
    for name, content in TAKEN.items():
        (tmp_path / name).write_bytes(content)
    lines = [line for n, name in enumerate(TAKEN) for line in three(f"./{name}", n)]
    for told in run_commands(tmp_path, lines):
        assert told.returncode == 0, told
    inside = {"double.jsonl": TEXT, "zeros.txt.gz": TEXT, "zeros.txt.xz": TEXT * 2}
    for number, (name, content) in enumerate(TAKEN.items()):
        expected = inside[name].encode() if name in inside else content
        directory = tmp_path / f"d{number}"
        ids = ids_of(directory, "train") + ids_of(directory, "val")
        assert bytes(token_id for token_id in ids if token_id != 256) == expected, name
        assert ids.count(256) == 1, name
    assert not (tmp_path / "canary").exists()


def columns(**values: object) -> pa.Table:
    return pa.table(values)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (columns(text=[1, 2]), "row group 0: the field 'text' holds int"),
        (columns(text=[["a"]]), "holds list"),
        (columns(text=pa.array([b"a\xff"], pa.binary())), "holds bytes"),
        (columns(text=["a", None]), "holds NoneType"),
        (columns(other=["a"]), "no field 'text' (there: other)"),
    ],
)
def test_a_column_that_is_no_text_is_refused(tmp_path: Path, table: pa.Table, told: str) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    config = DataConfig(input_files=(str(tmp_path / "a.parquet"),), tokenization="byte")
    with pytest.raises(DataError) as caught:
        prepared(config, tmp_path / "data")
    assert told in caught.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "nowhere.txt").symlink_to("gone.txt")
    names = ["pipe.txt", "folder.txt", "loop.txt", "nowhere.txt", "/dev/zero", "/dev/full", "/dev/null"]
    results = run_commands(tmp_path, [line for n, name in enumerate(names) for line in three(name, n)])
    for name, told in zip([name for name in names for _ in range(3)], results, strict=True):
        assert told.returncode == 3, told
        assert told.stderr.startswith(f"Error: {name}: "), told


# Any text at all.

ANY_TEXT = VARIED | st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(deadline=None, max_examples=100 if CHAOS else 15)
@given(st.lists(ANY_TEXT, max_size=5), st.sampled_from(["gpt2", "byte", "char"]), st.integers(8, 400))
def test_any_texts_come_back_from_their_shards(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], tokenization: str, unit_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    texts = [text for text in texts if text]
    if not texts:
        return
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        small_units(patch, unit_bytes)
        careless_disk(patch)
        config = DataConfig(input_files=(str(folder),), tokenization=tokenization, val_fraction=0)
        prepared(config, folder / "data", 500)
    if tokenization == "char":
        # No id ends a document: the texts lie end to end.
        tokenizer = build_tokenizer(open_dataset(folder / "data").spec)
        content = b"".join(tokenizer.decode_bytes(one) for one in ids_of(folder / "data", "train"))
        assert content.decode() == "".join([*texts, *texts])
    else:
        found = texts_of(folder / "data", "train")
        assert sorted(found) == sorted([*texts, *texts])


# One character for ever.


UNITS = [" ", "a", "日", "^", "\n", "\u0301", "👩‍👩‍👧", "1", " \n", "\u00a0"]


def test_the_same_for_ever_takes_seconds(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(tale(300))
    lines = [["tokenizer", "train", "words.txt", "--out", "own.json", "--vocab-size", "300"]]
    for number, unit in enumerate(UNITS):
        name = f"{number}.txt"
        (tmp_path / name).write_text(unit * (LONG_RUN_CHARS // len(unit)), encoding="utf-8", newline="")
        lines += [
            [*PREPARE, "--tokenization", tokenization, "--out-dir", f"d{number}-{tokenization}", name]
            for tokenization in ("gpt2", "own.json", "char", "byte")
        ]
        lines.append(["tokenizer", "train", name, "--out", f"{number}.json", "--vocab-size", "258"])
    clock = "import time; results[-1] = (*results[-1][:2], str(time.process_time()))"
    results = run_commands(tmp_path, lines, after=clock, env={"RAYON_NUM_THREADS": "1"})
    assert all(told.returncode == 0 for told in results), results
    clocks = [0.0, *(float(told.stdout) for told in results)]
    slowest_s = max(after - before for before, after in pairwise(clocks))
    assert slowest_s < (30 if CHAOS else 6), [(told.line, told.stdout) for told in results]


# Much of it: memory that does not grow with the text.

PEAK = """
from pathlib import Path
results[-1] = (*results[-1][:2], Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def peak_bytes(folder: Path, line: list[str]) -> int:
    (told,) = run_commands(folder, [line], after=PEAK.strip().replace("\n", "; "))
    assert told.returncode == 0, told
    return int(told.stdout) * 1024


def write_much(path: Path, unit: bytes, before: bytes = b"", after: bytes = b"") -> None:
    content = before + unit * (LARGE_BYTES // len(unit)) + after
    path.write_bytes(COMPRESSIONS[path.suffix](content) if path.suffix in COMPRESSIONS else content)


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
@pytest.mark.parametrize("name", ["line.txt", "bomb.txt.gz", "bomb.txt.zst"])
def test_text_without_an_end_is_prepared_in_bounded_memory(tmp_path: Path, name: str) -> None:
    write_much(tmp_path / name, b"x")
    assert peak_bytes(tmp_path, [*PREPARE, "--out-dir", "data", "--input-files", name]) < 300 * 10**6


@pytest.mark.skipif(sys.platform != "linux", reason="measured through /proc")
def test_a_record_takes_a_few_times_its_size(tmp_path: Path) -> None:
    write_much(tmp_path / "a.jsonl", b"words of ", b'{"text": "', b'"}\n')
    peak = peak_bytes(tmp_path, [*PREPARE, "--out-dir", "data", "--input-files", "a.jsonl"])
    assert peak < 150 * 10**6 + 5 * LARGE_BYTES


def test_a_record_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mypt.core.data.text.formats._LONGEST_LINE_CHARS", 10**5)
    lines = ['{"text": "short"}', '{"text": "' + "long " * 10**6 + '"}']
    for suffix in ("jsonl", "csv"):
        (tmp_path / f"a.{suffix}").write_bytes(records("text" if suffix == "csv" else lines[0], lines[1]))
        config = DataConfig(input_files=(str(tmp_path / f"a.{suffix}"),), tokenization="byte")
        with pytest.raises(DataError, match=rf"a\.{suffix}: line 2: longer than 100,000 characters"):
            prepared(config, tmp_path / "data")


def test_a_text_that_does_not_fit_into_memory_is_refused_in_time(
    tiny_run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mypt.core.data.memory._BLOCK_TOKENS", 1000)
    config = tiny_run.data.model_copy(update={"tokenization": "byte"})
    left = iter([2**40, 2**40, 2**28 + 1])
    monkeypatch.setattr("mypt.core.data.room.free_memory_bytes", lambda: next(left))
    with pytest.raises(MemoryShortageError, match=r"3,000 tokens are read, 256 MiB free") as caught:
        list(read_into_memory(config, None))
    assert "prepare-dataset" in caught.value.hint


# Text that changes while it is read.


@pytest.mark.parametrize("change", ["grows", "shrinks", "goes"])
def test_a_text_that_changes_while_it_is_read_for_training_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    small_units(monkeypatch, 2000)
    monkeypatch.setattr("mypt.core.data.memory._TOLD_EVERY_S", 0.0)
    path = tmp_path / "a.txt"
    path.write_text(TEXT * 20)
    reading = read_into_memory(DataConfig(input_files=(str(path),), tokenization="byte"), None)
    assert isinstance(next(reading), TextRead)
    with path.open("ab") as file:
        if change == "grows":
            file.write(b"more")
        else:
            file.truncate(1000)
    if change == "goes":
        path.unlink()
    with pytest.raises(DataError, match=r"a\.txt: (changed while|became shorter|cannot read)"):
        list(reading)
