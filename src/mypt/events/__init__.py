"""What the engine tells. Every verb yields these; the roof draws them.

Frozen values of plain types only, so that an event prints as one JSON line (`as_json`).
"""

from mypt.events.base import Event, Noted, Warned, result_of
from mypt.events.bench import BenchStarted, LeftOut, Measured
from mypt.events.data import (
    DatasetCompressed,
    DatasetWritten,
    PreparationPlanned,
    RankFinished,
    ShardsChecked,
    ShardWritten,
    TextRead,
    TextSampled,
    TokenizerWritten,
)
from mypt.events.evaluation import Scored, Scoring
from mypt.events.generation import Generated, SampleStarted, Token, TokenScore
from mypt.events.training import Evaluated, Finished, RunPlanned, Saved, Skipped, StepDone
from mypt.events.upkeep import Converted, Exported, FileVerified, Imported, Quantized, Replayed, Replaying, Verified

__all__ = [
    "BenchStarted",
    "Converted",
    "DatasetCompressed",
    "DatasetWritten",
    "Evaluated",
    "Event",
    "Exported",
    "FileVerified",
    "Finished",
    "Generated",
    "Imported",
    "LeftOut",
    "Measured",
    "Noted",
    "PreparationPlanned",
    "Quantized",
    "RankFinished",
    "Replayed",
    "Replaying",
    "RunPlanned",
    "SampleStarted",
    "Saved",
    "Scored",
    "Scoring",
    "ShardWritten",
    "ShardsChecked",
    "Skipped",
    "StepDone",
    "TextRead",
    "TextSampled",
    "Token",
    "TokenScore",
    "TokenizerWritten",
    "Verified",
    "Warned",
    "result_of",
]
