"""Parquet files, through pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mypt.errors import DataError, MissingExtraError

_BATCH_ROWS = 256


def open_parquet(path: Path) -> Any:  # noqa: ANN401 - pyarrow comes without types
    """Open a parquet file for reading its row groups.

    Raises:
        DataError: when it is no parquet file.
        MissingExtraError: without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(
            f"{path}: reading .parquet needs the package pyarrow", hint="pip install 'mypt[data]'"
        ) from None
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as problem:
        raise DataError(f"{path}: cannot read it ({problem})") from None


def column_names(path: Path) -> list[str]:
    """The columns of a table.

    Raises:
        DataError: when it is no parquet file.
        MissingExtraError: without pyarrow.
    """
    with open_parquet(path) as file:
        return file.schema_arrow.names


def read_column(path: Path, group: int, name: str) -> Iterator[tuple[Any, float]]:
    """The values of one column in one row group, each with the share of the rows that is read then.

    Raises:
        DataError: when the table is damaged.
        MissingExtraError: without pyarrow.
    """
    with open_parquet(path) as file:
        total_rows = file.metadata.row_group(group).num_rows
        batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=[name])
        rows = 0
        while True:
            try:
                values = next(batches).column(0).to_pylist()
            except StopIteration:
                return
            except (OSError, ValueError, TypeError, NotImplementedError) as problem:  # of which pyarrow's own derive
                raise DataError(f"{path}: row group {group}: cannot read it ({problem})") from None
            for value in values:
                rows += 1
                yield value, rows / total_rows
