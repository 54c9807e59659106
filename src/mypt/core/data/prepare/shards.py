"""All shards of a laid-out dataset: placed as jobs, told as events, units deleted as they are used up."""

from collections.abc import Generator, Iterator

import numpy as np

from mypt.core.data.prepare.engines import place
from mypt.core.data.prepare.jobs import Job
from mypt.core.data.prepare.planning import worker_count
from mypt.core.data.prepare.workspace import Workspace
from mypt.core.data.text.sides import SPLITS
from mypt.durable import sync_directory
from mypt.events import Event, ShardWritten, Warned
from mypt.records.dataset import ShardInfo, Split
from mypt.records.plan import PrepareConfig

_BYTES_WORTH_A_PROCESS = 2**28


def assemble_shards(
    workspace: Workspace, options: PrepareConfig
) -> Generator[Event, None, dict[Split, list[ShardInfo]]]:
    """Write all shards that are not there yet."""
    drops = {
        unit for unit in range(len(workspace.units)) for split in SPLITS if _has_open_drops(workspace, unit, split)
    }
    for told in place(workspace, [Job("compact", unit) for unit in sorted(drops)], options):
        if isinstance(told, Warned):
            yield told
    # A process takes as long to start as to copy a quarter of a gigabyte.
    worth = workspace.layout.total_bytes // _BYTES_WORTH_A_PROCESS + 1
    options = options.model_copy(update={"workers": min(worker_count(options), worth)})
    jobs = [Job(split, number) for split in SPLITS for number in range(_shard_count(workspace, split))]
    done = {job for job in jobs if _result(workspace, job)}
    cleaner = _Cleaner(workspace)
    for told in place(workspace, [job for job in jobs if job not in done], options):
        if isinstance(told, Warned):
            yield told
        elif told.done:
            done.add(told.job)
            info = _result(workspace, told.job)
            assert info is not None, "said to be done"
            yield ShardWritten(path=info.path, tokens=info.tokens, size_bytes=info.tokens * info.item_bytes)
            cleaner.delete_used(done)
    for split in SPLITS:
        sync_directory(workspace.dataset_dir / split)
    return {split: list(_infos(workspace, split)) for split in SPLITS}


def _has_open_drops(workspace: Workspace, unit: int, split: Split) -> bool:
    """Whether documents of a unit are still to be taken out. Its index is written last."""
    paths = (workspace.stream_path(unit, split, kind) for kind in ("drop", "kept.idx"))
    drop, kept = (path.is_file() for path in paths)
    return drop and not kept


def _shard_count(workspace: Workspace, split: Split) -> int:
    span = workspace.layout.range_of(split)
    return -(-span.tokens // workspace.plan.tokens_per_shard)


def _result(workspace: Workspace, job: Job) -> ShardInfo | None:
    return workspace.shard_result("train" if job.kind == "train" else "val", job.number)


def _infos(workspace: Workspace, split: Split) -> Iterator[ShardInfo]:
    for number in range(_shard_count(workspace, split)):
        info = workspace.shard_result(split, number)
        assert info is not None, "all jobs are done"
        yield info


class _Cleaner:
    """Deletes the files of units all of whose tokens are in finished shards: the disk holds them once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        layout = workspace.layout
        self._unit_ends = {split: np.cumsum(layout.unit_tokens[split], dtype=np.int64) for split in SPLITS}
        self._next_shard = dict.fromkeys(SPLITS, 0)
        self._next_unit = dict.fromkeys(SPLITS, 0)

    def delete_used(self, done: set[Job]) -> None:
        """Look what has been used up since the last time."""
        for split in SPLITS:
            while Job(split, self._next_shard[split]) in done:
                self._next_shard[split] += 1
        for stream in SPLITS:
            used = self._used_tokens(stream)
            ends = self._unit_ends[stream]
            while self._next_unit[stream] < len(ends) and ends[self._next_unit[stream]] <= used:
                for kind in ("drop", "bin", "idx", "docs", "kept.bin", "kept.idx"):
                    self._workspace.stream_path(self._next_unit[stream], stream, kind).unlink(missing_ok=True)
                self._next_unit[stream] += 1

    def _used_tokens(self, stream: Split) -> int:
        """How far a stream is used up from its beginning."""
        layout, size = self._workspace.layout, self._workspace.plan.tokens_per_shard
        used = 0
        for split in SPLITS:
            span = layout.range_of(split)
            if span.stream == stream and span.start <= used:
                used = max(used, min(span.end, span.start + self._next_shard[split] * size))
        return used
