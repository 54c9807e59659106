"""Files, folders and globs -> sources: each with its format, its compression and its size."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mypt.core.data.text.tables import open_parquet
from mypt.errors import DataError, UsageError
from mypt.records.plan import STDIN, Compression, SourceFile, SourceFormat
from mypt.records.run import DataConfig
from mypt.records.text import TextFormat

HF_SCHEME = "hf://"

_FORMATS: dict[str, SourceFormat] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".xz": "xz", ".zst": "zst"}
_MAGIC = "*?["


def require_text(config: DataConfig) -> None:
    """Refuse a config that names no text, or files that are not there. Reads nothing.

    Raises:
        UsageError: when no source is given.
        DataError: when a file is missing.
    """
    if not config.dataset_dir:
        if not config.input_files:
            raise UsageError("no text to train on", hint="Name some: mypt train notes.txt, or --dataset-dir DIR")
        find_sources(config.input_files, config.text_format)


def find_sources(patterns: Sequence[str], text_format: TextFormat = "auto") -> list[SourceFile]:
    """Resolve files, folders, globs, '-' and hf:// names; sorted within each pattern.

    A folder means its .txt, .jsonl, .csv and .parquet files at any depth, compressed or not.
    Hidden files are left out, and links to folders are not followed.

    Raises:
        DataError: for a pattern that gives no readable file.
    """
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        if pattern == STDIN:
            found[STDIN] = SourceFile(path=STDIN, size_bytes=0, format=_given(text_format) or "txt")
        elif pattern.startswith(HF_SCHEME):
            found[pattern] = SourceFile(path=pattern, size_bytes=0, format="hf")
        else:
            for path in _expand(pattern):
                source = _source(path, text_format)
                found[source.path] = source
    return list(found.values())


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files alone: what `find_sources` finds on this machine."""
    return [Path(source.path) for source in find_sources(patterns)]


def with_parts(source: SourceFile) -> SourceFile:
    """Add the sizes of what can be read alone: row groups of a table, shards of a streamed dataset."""
    if source.format == "parquet":
        metadata = open_parquet(Path(source.path)).metadata
        sizes = tuple(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        return replace(source, part_bytes=sizes)
    if source.format == "hf":
        from mypt.core.data.text.hub import open_hub_dataset

        shards = open_hub_dataset(source.path).num_shards
        return replace(source, part_bytes=(0,) * shards)
    return source


def _source(path: Path, text_format: TextFormat) -> SourceFile:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{os.fsencode(path)!r}: a file name that is not UTF-8", hint="Rename it, or leave it out."
        ) from None
    status = path.stat()
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    inner = path.with_suffix("") if compression else path
    return SourceFile(
        # A file of this name, and not what is typed for standard input.
        path=f"./{STDIN}" if str(path) == STDIN else str(path),
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        format=_given(text_format) or _FORMATS.get(inner.suffix.lower(), "txt"),
        compression=compression,
    )


def _given(text_format: TextFormat) -> SourceFormat | None:
    return None if text_format == "auto" else text_format


def _expand(pattern: str) -> list[Path]:
    if not pattern:
        raise DataError("an empty file name", hint="Name text files, folders or globs.")
    try:
        path = Path(pattern).expanduser()
        if path.is_dir():
            return _require(sorted(_walk(path)), f"{pattern}: no text file in this folder", _other_files(pattern))
        if path.is_file():
            return [path]
        if path.exists():
            raise DataError(
                f"{pattern}: not a regular file", hint="Pipes are read from standard input: … | mypt train -"
            )
        matches = sorted(_glob(path)) if any(sign in pattern for sign in _MAGIC) else []
    except (OSError, RuntimeError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise DataError(f"{pattern[:80]}: cannot look for it ({reason})") from None
    hint = "Check the path; globs such as 'data/**/*.txt' work too."
    return _require(matches, f"{pattern}: no such file", hint)


def _require(files: list[Path], message: str, hint: str) -> list[Path]:
    if not files:
        raise DataError(message, hint=hint)
    return files


def _other_files(folder: str) -> str:
    return f"Name other files by a glob: '{folder.rstrip('/')}/**/*.md'"


def _walk(folder: Path) -> Iterator[Path]:
    """Text files of known names below a folder."""

    def refuse(problem: OSError) -> None:
        raise problem

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            inner = path.with_suffix("") if path.suffix.lower() in _COMPRESSIONS else path
            if inner.suffix.lower() in _FORMATS and not name.startswith(".") and path.is_file():
                yield path


def _glob(pattern: Path) -> Iterator[Path]:
    """Files that match; `**` does not enter hidden folders or links to folders."""
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if any(sign in part for sign in _MAGIC))
    base = Path(*parts[:fixed])
    for path in base.glob(str(Path(*parts[fixed:]))):
        inside = path.relative_to(base).parts
        hidden = any(part.startswith(".") for part in inside) and not any(part[0] == "." for part in parts[fixed:])
        if not hidden and path.is_file():
            yield path
