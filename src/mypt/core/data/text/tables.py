"""Parquet files, through pyarrow."""

from pathlib import Path
from typing import Any

from mypt.errors import DataError, MissingExtraError


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
