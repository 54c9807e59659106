"""The folder of an unfinished dataset: its plan, its finished units, its finished shards.

    OUT.partial/
      plan.json  tokenizer.json  encoder     fixed before the first unit
      units/000012.train.bin .idx .docs      tokens, document ends, document hashes
      units/000012.json                      renamed into place last: the unit is finished
      dataset/                               becomes OUT
      shards/train-00003.json                the same for a shard

Whatever is here and finished is never done again; whatever is unfinished has a process number in
its name and is thrown away.
"""

import glob
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mypt.core.data.text.sides import SPLITS
from mypt.core.data.text.units import Unit, cut_units
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.durable import make_directory, own_name, sync_file, write_text
from mypt.errors import DataError
from mypt.records.base import Record
from mypt.records.dataset import ShardInfo, Split
from mypt.records.plan import PLAN_FILE, Layout, PreparePlan, UnitResult
from mypt.records.tokenizer import TOKENIZER_FILE, EncoderName, TokenizerSpec, read_tokenizer_spec

_ENCODER_FILE = "encoder"
_LAYOUT_FILE = "layout.json"
_MARKER_FILE = "unfinished-dataset.txt"
_MARKER = """mypt prepare-dataset works here. The command that began it goes on with it when it is given again.
To give it up, delete this folder.
"""


class Workspace:
    """Paths and plan of one unfinished dataset. Opened anew by every process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units_dir = path / "units"
        self.shards_dir = path / "shards"
        self.dataset_dir = path / "dataset"

    @staticmethod
    def beside(out_dir: Path) -> "Workspace":
        """The workspace of a dataset: beside it, on the same disk."""
        return Workspace(out_dir.with_name(f"{out_dir.name}.partial"))

    @property
    def has_plan(self) -> bool:
        """Whether the work has begun."""
        return (self.path / PLAN_FILE).is_file()

    def is_published(self, plan: PreparePlan) -> bool:
        """Whether the dataset of this plan has left for its final name."""
        return self.has_plan and not self.dataset_dir.exists() and self.plan == plan

    def require_own(self) -> None:
        """Refuse a folder that somebody else has made under the name of our own.

        Raises:
            DataError: naming what is in it.
        """
        marker = self.path / _MARKER_FILE
        strange = [path.name for path in self.path.iterdir()] if self.path.is_dir() and not marker.is_file() else []
        if strange:
            raise DataError(
                f"{self.path}: this folder is needed for the work, and holds '{min(strange)}', which is not ours",
                hint="Move it away, or choose another --out-dir.",
            )

    def _mark(self) -> None:
        """Make the folder, and say in it first of all whose it is."""
        make_directory(self.path)
        if not (self.path / _MARKER_FILE).is_file():
            write_text(self.path / _MARKER_FILE, _MARKER)

    def begin(self, plan: PreparePlan) -> None:
        """Make the folders; the plan comes last."""
        self._mark()
        for folder in (self.units_dir, self.shards_dir, *(self.dataset_dir / split for split in SPLITS)):
            folder.mkdir(parents=True, exist_ok=True)
        plan.write(self.path / PLAN_FILE)

    @cached_property
    def plan(self) -> PreparePlan:
        """The plan, as it was fixed."""
        return PreparePlan.read(self.path / PLAN_FILE, error=DataError)

    @cached_property
    def units(self) -> list[Unit]:
        """All units, in the order of their tokens."""
        return cut_units(self.plan.sources, self.plan.unit_bytes)

    def finished_units(self) -> int:
        """How many units are finished, whatever the plan says."""
        return sum(1 for _ in self.units_dir.glob("*.json")) if self.units_dir.is_dir() else 0

    def lock_path(self, rank: int | None) -> Path:
        """The lock of a command, beside the folder; ranks share the folder, each with a lock of its own."""
        return self.path.with_name(f".{self.path.name}{'' if rank is None else f'-{rank}'}.lock")

    def rank_locks(self) -> list[Path]:
        """The locks of all ranks that are at work, or were killed at it."""
        return sorted(self.path.parent.glob(f".{glob.escape(self.path.name)}-*.lock"))

    def sweep(self) -> None:
        """Throw away what processes that are gone have left half done."""
        for folder in (self.path, self.units_dir, self.shards_dir, *(self.dataset_dir / split for split in SPLITS)):
            for path in folder.glob("*.tmp"):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.path, ignore_errors=True)

    def set_tokenizer(self, spec: TokenizerSpec, encoder: EncoderName) -> None:
        """Fix what turns text into ids."""
        spec.write(self.path / TOKENIZER_FILE)
        write_text(self.path / _ENCODER_FILE, encoder)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer is fixed."""
        return (self.path / _ENCODER_FILE).is_file()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of this dataset."""
        encoder = (self.path / _ENCODER_FILE).read_text(encoding="utf-8")
        spec = read_tokenizer_spec(self.path / TOKENIZER_FILE)
        return build_tokenizer(spec, "gigatoken" if encoder == "gigatoken" else "tiktoken")

    def stream_path(self, unit: int, split: Split, kind: str) -> Path:
        """A unit's file: `bin`, `idx` or `docs`. Not there where the unit has none of that split."""
        return self.units_dir / f"{unit:06d}.{split}.{kind}"

    def result_path(self, unit: int) -> Path:
        """The file that says a unit is finished."""
        return self.units_dir / f"{unit:06d}.json"

    def chars_path(self, unit: int) -> Path:
        """The distinct characters of a unit."""
        return self.units_dir / f"{unit:06d}.chars"

    def result(self, unit: int) -> UnitResult | None:
        """What a unit gave; None while it is not finished."""
        path = self.result_path(unit)
        return UnitResult.read(path, error=DataError) if _is_whole(path) else None

    def kept_path(self, unit: int, split: Split, kind: str) -> Path:
        """A unit's file without duplicates, where there were any."""
        kept = self.stream_path(unit, split, f"kept.{kind}")
        return kept if kept.is_file() else self.stream_path(unit, split, kind)

    @property
    def has_layout(self) -> bool:
        """Whether all units were finished and it is fixed where their tokens go."""
        return (self.path / _LAYOUT_FILE).is_file()

    def set_layout(self, layout: Layout) -> None:
        """Fix where every token goes."""
        layout.write(self.path / _LAYOUT_FILE)

    @cached_property
    def layout(self) -> Layout:
        """Where every token goes."""
        return Layout.read(self.path / _LAYOUT_FILE, error=DataError)

    @cached_property
    def unit_starts(self) -> dict[Split, NDArray[np.int64]]:
        """Where each unit begins in both streams, and where the last one ends; shape (units + 1,)."""
        tokens = self.layout.unit_tokens
        return {split: np.concatenate([[0], np.cumsum(tokens[split], dtype=np.int64)]) for split in SPLITS}

    def shard_result_path(self, split: Split, shard: int) -> Path:
        """The file that says a shard is finished."""
        return self.shards_dir / f"{split}-{shard:05d}.json"

    def shard_result(self, split: Split, shard: int) -> ShardInfo | None:
        """A shard's line of the manifest; None while it is not finished."""
        path = self.shard_result_path(split, shard)
        return ShardInfo.read(path, error=DataError) if _is_whole(path) else None

    def shard_name(self, split: Split, shard: int) -> str:
        """A shard's path inside the dataset."""
        return f"{split}/shard-{shard:05d}.bin"


def publish(path: Path) -> None:
    """Give a file that was written under its own name its final one, its bytes on the disk first."""
    sync_file(own_name(path))
    own_name(path).replace(path)


def publish_result(path: Path, result: Record) -> None:
    """Say that something is finished. Not synced: a lost line only means to do the work again."""
    own_name(path).write_text(result.model_dump_json(), encoding="utf-8")
    own_name(path).replace(path)


def _is_whole(path: Path) -> bool:
    """After a power cut a result may be there without its content."""
    return path.is_file() and path.read_bytes().endswith(b"}")
