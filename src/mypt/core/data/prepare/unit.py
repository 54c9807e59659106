"""One unit: text in, its tokens, document ends and document hashes out."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from mypt.core.data.prepare.workspace import Workspace, publish, publish_result
from mypt.core.data.text.documents import read_documents
from mypt.core.data.text.sides import SPLITS
from mypt.core.data.text.spans import Tally
from mypt.core.data.tokenize import Chunk, encode_documents
from mypt.core.tokens.base import id_dtype
from mypt.durable import own_name
from mypt.records.dataset import Split
from mypt.records.plan import StreamCounts, UnitResult


def encode_unit(workspace: Workspace, number: int) -> Iterator[tuple[int, int]]:
    """Encode a unit into its files and publish them; yields (bytes read, tokens) on the way.

    Raises:
        DataError: for text that cannot be read or encoded.
    """
    plan, tokenizer, tally = workspace.plan, workspace.tokenizer, Tally()
    pieces = read_documents(workspace.units[number], plan.sources, plan.text, tally)
    with ExitStack() as files:
        streams = {split: files.enter_context(_Stream(workspace, number, split)) for split in SPLITS}
        for chunk in encode_documents(pieces, tokenizer):
            streams[chunk.split].append(chunk, id_dtype(tokenizer.vocab_size))
            yield tally.read_bytes, sum(stream.tokens for stream in streams.values())
        counts = {split: stream.publish() for split, stream in streams.items()}
    result = UnitResult(
        train=counts["train"],
        val=counts["val"],
        read_bytes=tally.read_bytes,
        text_bytes=tally.text_bytes,
        empty_documents=tally.empty_documents,
        dropped_lines=tally.dropped_lines,
    )
    publish_result(workspace.result_path(number), result)
    yield tally.read_bytes, sum(count.tokens for count in counts.values())


def survey_unit(workspace: Workspace, number: int) -> Iterator[tuple[int, int]]:
    """Collect the distinct characters of a unit."""
    plan, tally = workspace.plan, Tally()
    chars: set[str] = set()
    for piece in read_documents(workspace.units[number], plan.sources, plan.text, tally):
        chars.update(piece.text)
        yield tally.read_bytes, 0
    path = workspace.chars_path(number)
    own_name(path).write_text("".join(sorted(chars)), encoding="utf-8", newline="")
    publish(path)


class _Stream:
    """The tokens of one split of a unit. Files are made at the first token, and only then."""

    def __init__(self, workspace: Workspace, unit: int, split: Split) -> None:
        self.tokens = 0
        self.documents = 0
        self._paths = {kind: workspace.stream_path(unit, split, kind) for kind in ("bin", "idx", "docs")}
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Throw away what was not published."""
        for kind, file in self._files.items():
            file.close()
            own_name(self._paths[kind]).unlink(missing_ok=True)

    def append(self, chunk: Chunk, dtype: np.dtype[np.uint16 | np.uint32]) -> None:
        """Write a chunk behind the ones before."""
        if not self._files:
            self._files = {kind: _create(path) for kind, path in self._paths.items()}
        self._files["bin"].write(np.ascontiguousarray(chunk.ids, dtype=dtype).data)
        self._files["idx"].write((chunk.ends + self.tokens).astype("<u8").tobytes())
        self._files["docs"].write(chunk.end_records)
        self.tokens += chunk.ids.size
        self.documents += chunk.ends.size

    def publish(self) -> StreamCounts:
        """Give the files their final names."""
        for kind, file in self._files.items():
            file.close()
            publish(self._paths[kind])
        self._files = {}
        return StreamCounts(tokens=self.tokens, documents=self.documents)


def _create(path: Path) -> BinaryIO:
    return own_name(path).open("wb")
