"""A name holds the old content or the whole new one; nothing is lost and nothing is left behind."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypt.durable import publish_directory, set_aside, sha256_of, sync_directory, sync_file, write_text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    # An empty folder.
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("text", ["", "a\nb\n", "a\r\nb", "naïve ☕ 𝄞\n", "x" * 200_000])
def test_written_text_is_there_byte_for_byte_and_alone(place: Path, text: str) -> None:
    write_text(place / "a.json", "old")
    write_text(place / "a.json", text)
    assert (place / "a.json").read_bytes() == text.encode()
    assert [file.name for file in place.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_the_old_content_and_nothing_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(place / "a.json", "old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(place / "a.json", "new")
    assert (place / "a.json").read_text() == "old"
    assert [file.name for file in place.iterdir()] == ["a.json"]


def test_the_new_content_is_on_the_disk_before_it_gets_the_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(place / "a.json", "old")
    synced: list[str] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        synced.append((place / "a.json").read_text())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    write_text(place / "a.json", "new")
    # First the file under its temporary name, then the folder that holds the rename.
    assert synced == ["old", "new"]


def test_text_that_cannot_be_encoded_leaves_the_old_content(place: Path) -> None:
    write_text(place / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(place / "a.json", "new \ud800")
    assert (place / "a.json").read_text() == "old"


def test_a_published_directory_has_its_name_and_content(place: Path) -> None:
    temporary = place / "data.partial"
    temporary.mkdir()
    (temporary / "a").write_text("content")
    publish_directory(temporary, place / "data")
    assert (place / "data" / "a").read_text() == "content"
    assert not temporary.exists()


def test_publishing_never_replaces_a_full_directory(place: Path) -> None:
    for name in ("new", "old"):
        (place / name).mkdir()
        (place / name / "a").write_text(name)
    with pytest.raises(OSError, match=r"."):
        publish_directory(place / "new", place / "old")
    assert (place / "old" / "a").read_text() == "old"
    assert (place / "new" / "a").read_text() == "new"


def test_what_is_set_aside_keeps_its_content_under_a_free_name(place: Path) -> None:
    targets = []
    for number in range(4):
        folder = place / "step-00000010"
        folder.mkdir()
        (folder / "a").write_text(str(number))
        targets.append(set_aside(folder, "broken"))
        assert not folder.exists()
    assert len(set(targets)) == 4
    assert [(target / "a").read_text() for target in targets] == list("0123")
    assert all(target.parent == place and target.name.startswith("step-00000010.broken-") for target in targets)


@given(st.binary(max_size=5000))
def test_the_hash_of_a_file_is_the_hash_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hashed.bin"
    path.write_bytes(data)
    assert sha256_of(path) == hashlib.sha256(data).hexdigest()


def test_syncing_changes_nothing(place: Path) -> None:
    (place / "a").write_bytes(b"data")
    sync_file(place / "a")
    sync_directory(place)
    assert (place / "a").read_bytes() == b"data"
    assert len(list(place.iterdir())) == 1
