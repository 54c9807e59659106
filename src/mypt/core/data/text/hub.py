"""hf://NAME -> a streamed dataset of the Hugging Face hub: only what is read is downloaded.

hf://owner/name                        its default configuration, split train
hf://owner/name?config=en&split=test&revision=1a2b3c
hf://json?data_files=/data/*.jsonl     a format and local files, through the same loader
"""

import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from mypt.errors import DataError, MissingExtraError

_HUB = ("huggingface.co", 443)
_PATIENCE_S = 3.0
# Another one, pandas, means pickles, and loading those may run anything.
_LOCAL_FORMATS = {"arrow", "csv", "json", "parquet", "text"}
_OTHER_ROUTES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT")
_OFFLINE = ("MYPT_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def open_hub_dataset(address: str) -> Any:  # noqa: ANN401 - an IterableDataset, whose package may be missing
    """Open a dataset for streaming.

    Raises:
        DataError: offline, for an address of another form, or when the hub refuses.
        MissingExtraError: without the package datasets.
    """
    name, _, query = address.removeprefix("hf://").partition("?")
    options = {key: values[-1] for key, values in parse_qs(query).items()}
    unknown = sorted(set(options) - {"config", "split", "data_files", "revision"})
    if not name or unknown:
        raise DataError(
            f"{address}: cannot be meant" + (f" (unknown: {', '.join(unknown)})" if unknown else ""),
            hint="For example: 'hf://roneneldan/TinyStories?split=train'",
        )
    if "data_files" not in options:
        _require_network(address)
    elif "/" not in name and name not in _LOCAL_FORMATS:
        raise DataError(
            f"{address}: files of the format {name} are not read", hint=f"Known: {', '.join(sorted(_LOCAL_FORMATS))}."
        )
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(f"{address}: needs the package datasets", hint="pip install 'mypt[data]'") from None
    try:
        return datasets.load_dataset(
            name,
            options.get("config"),
            split=options.get("split", "train"),
            data_files=options.get("data_files"),
            revision=options.get("revision"),
            streaming=True,
        )
    except Exception as problem:  # noqa: BLE001 - of many error types, all of which mean: not there
        raise DataError(f"{address}: cannot open it ({type(problem).__name__}: {problem})") from None


def read_hub_records(address: str, shard: int, shards: int) -> Iterator[dict[str, Any]]:
    """The records of one shard, as they come.

    Raises:
        DataError: when the dataset cannot be opened, or the stream breaks off.
        MissingExtraError: without the package datasets.
    """
    records = iter(open_hub_dataset(address).shard(num_shards=shards, index=shard))
    while True:
        try:
            record = next(records, None)
        except Exception as problem:  # noqa: BLE001 - of many error types, all of which mean: no more to read
            raise DataError(
                f"{address}: cannot read it ({type(problem).__name__}: {problem})",
                hint="Network trouble? The same command goes on where this one was.",
            ) from None
        if record is None:
            return
        yield record


def _require_network(address: str) -> None:
    """Fail at once where the hub would only fail after a minute of trying again."""
    forbidden = [name for name in _OFFLINE if os.environ.get(name, "") not in {"", "0"}]
    if forbidden:
        raise DataError(f"{address}: needs the network, which {forbidden[0]} forbids")
    if any(os.environ.get(name) for name in _OTHER_ROUTES):
        return  # a proxy or a mirror, which a plain connection does not know
    try:
        socket.create_connection(_HUB, timeout=_PATIENCE_S).close()
    except OSError as problem:
        raise DataError(
            f"{address}: the hub {_HUB[0]} cannot be reached ({problem.strerror or problem})",
            hint="Check the network, or prepare from files on this machine.",
        ) from None
