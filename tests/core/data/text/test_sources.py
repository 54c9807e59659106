"""Files, folders and globs are found once, in order, and each is what its name says."""

import os
from pathlib import Path

import pytest

from mypt.core.data.text.sources import find_files, find_sources, with_parts
from mypt.errors import DataError
from preparation import write_parquet


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Some files, and that folder as the working directory.
    names = ["b.txt", "a.txt", "c.md", "deep/er/z.txt", "deep/y.txt", "odd[1].txt", "empty/.keep"]
    names += ["many/a.jsonl", "many/b.csv.gz", "many/c.ndjson.zst", "many/d.txt.xz", "many/e.md", "many/f.gz"]
    names += ["many/.hidden.txt", "many/.hidden/g.txt"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["b.txt", "a.txt"], ["b.txt", "a.txt"]),
        (["a.txt", "./a.txt", "*.txt"], ["a.txt", "b.txt", "odd[1].txt"]),
        (["*.txt"], ["a.txt", "b.txt", "odd[1].txt"]),
        (["**/*.txt"], ["a.txt", "b.txt", "deep/er/z.txt", "deep/y.txt", "odd[1].txt"]),
        (["deep"], ["deep/er/z.txt", "deep/y.txt"]),
        (["deep/"], ["deep/er/z.txt", "deep/y.txt"]),
        (["c.md"], ["c.md"]),
        (["odd[1].txt"], ["odd[1].txt"]),
        (["[ab].txt", "deep/y.txt"], ["a.txt", "b.txt", "deep/y.txt"]),
        (["many"], ["many/a.jsonl", "many/b.csv.gz", "many/c.ndjson.zst", "many/d.txt.xz"]),
        (["many/*"], ["many/a.jsonl", "many/b.csv.gz", "many/c.ndjson.zst", "many/d.txt.xz", "many/e.md", "many/f.gz"]),
        (["many/.hidden/*"], ["many/.hidden/g.txt"]),
    ],
)
@pytest.mark.usefixtures("tree")
def test_files_folders_and_globs_are_found_once_and_in_order(patterns: list[str], found: list[str]) -> None:
    assert find_files(patterns) == [Path(name) for name in found]


def test_absolute_patterns_give_absolute_files(tree: Path) -> None:
    assert find_files([f"{tree}/*.txt"])[0] == tree / "a.txt"
    assert find_files([f"{tree}/deep"]) == [tree / "deep/er/z.txt", tree / "deep/y.txt"]


@pytest.mark.parametrize("pattern", ["none.txt", "none/*.txt", "", "x" * 5000, "a\0b", "empty", "*.pdf"])
@pytest.mark.usefixtures("tree")
def test_a_pattern_that_gives_no_file_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(DataError) as caught:
        find_files(["a.txt", pattern])
    assert pattern[:20] in caught.value.message


def test_a_folder_without_text_says_how_to_name_other_files(tree: Path) -> None:
    with pytest.raises(DataError, match="no text file in this folder") as caught:
        find_sources([str(tree / "empty")])
    assert "*.md" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no fifos here")
def test_a_fifo_is_no_file_and_is_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: not a regular file"):
        find_files(["pipe.txt"])
    assert Path("pipe.txt") not in find_files(["*.txt"])
    assert tree / "pipe.txt" not in find_files([str(tree)])


def test_links_to_folders_are_not_followed(tree: Path) -> None:
    (tree / "loop").symlink_to(tree / "deep")
    assert not [path for path in find_files([str(tree)]) if "loop" in path.parts]


@pytest.mark.usefixtures("tree")
def test_format_and_compression_come_from_the_name() -> None:
    found = {source.path: (source.format, source.compression) for source in find_sources(["many", "c.md", "many/f.gz"])}
    assert found == {
        "many/a.jsonl": ("jsonl", ""),
        "many/b.csv.gz": ("csv", "gz"),
        "many/c.ndjson.zst": ("jsonl", "zst"),
        "many/d.txt.xz": ("txt", "xz"),
        "c.md": ("txt", ""),
        "many/f.gz": ("txt", "gz"),
    }


@pytest.mark.usefixtures("tree")
def test_a_given_format_wins_over_the_name() -> None:
    assert [source.format for source in find_sources(["c.md", "many/b.csv.gz", "-"], "jsonl")] == ["jsonl"] * 3


def test_a_source_knows_its_size_and_its_time(tree: Path) -> None:
    (source,) = find_sources([str(tree / "a.txt")])
    status = (tree / "a.txt").stat()
    assert (source.size_bytes, source.modified_ns) == (status.st_size, status.st_mtime_ns)


def test_the_parts_of_a_table_are_its_row_groups(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [f"text {number}" for number in range(10)], rows_per_group=4)
    (source,) = find_sources([str(path)])
    assert source.part_bytes == ()
    assert len(with_parts(source).part_bytes) == 3
    assert all(with_parts(source).part_bytes)


def test_a_table_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("text\n")
    with pytest.raises(DataError, match=r"a\.parquet: cannot read it"):
        with_parts(find_sources([str(tmp_path / "a.parquet")])[0])
