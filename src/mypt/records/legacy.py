"""The original MyPT's JSON shapes -> records. Pure translation, no torch."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mypt.errors import CheckpointError, MyptError
from mypt.records.base import Record
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, TrainingConfig
from mypt.records.tokenizer import CharSpec, Gpt2Spec, TokenizerSpec

_MODEL_KEYS = ("block_size", "vocab_size", "n_embd", "n_head", "n_layer", "dropout", "bias")
_TRAINING_KEYS = ("batch_size", "device")


def is_legacy_config(values: Mapping[str, Any]) -> bool:
    """Tell the original's flat config by its top-level architecture keys."""
    return "model" not in values and any(key in values for key in (*_MODEL_KEYS, *_TRAINING_KEYS))


def nested_from_legacy(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a flat config; keys it never had stay at the top, to be refused by name."""
    nested: dict[str, Any] = {"model": {}, "training": {}}
    for key, value in values.items():
        if key in _MODEL_KEYS:
            nested["model"][key] = value
        elif key in _TRAINING_KEYS:
            nested["training"][key] = value
        else:
            nested[key] = value
    return nested


class LegacyConfig(Record, frozen=True, extra="ignore"):
    """config.json of the original's folder format, and `config` of its single-file format."""

    batch_size: int = Field(16, ge=1)
    block_size: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    n_embd: int = Field(ge=1)
    n_head: int = Field(ge=1)
    n_layer: int = Field(ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    bias: bool = False

    def model(self) -> ModelConfig:
        """The same architecture as a ModelConfig of family mypt-v1.

        Raises:
            CheckpointError: for sizes that no model has.
        """
        sizes = {key: getattr(self, key) for key in _MODEL_KEYS}
        return ModelConfig.parse({"family": "mypt-v1"} | sizes, where="its config", error=CheckpointError)


class LegacyTokenizer(Record, frozen=True, extra="ignore"):
    """The original's tokenizer state: a kind, and the characters of a char tokenizer."""

    token_kind: str
    chars: tuple[str, ...] | None = None

    def spec(self, where: str, error: type[MyptError] = CheckpointError) -> TokenizerSpec:
        """The same tokenizer as a TokenizerSpec.

        Raises:
            error: for a kind the original never wrote.
        """
        if self.token_kind == "char" and self.chars:  # noqa: S105 - no secret
            return CharSpec(chars=self.chars)
        if self.token_kind == "gpt2":  # noqa: S105 - no secret
            return Gpt2Spec()
        raise error(f"{where}: unknown legacy tokenizer {self.token_kind!r}")


class LegacyDataset(Record, frozen=True, extra="ignore"):
    """dataset_metadata.json beside the original's shards."""

    total_tokens: int | None = Field(None, ge=0)
    train_shards: int | None = Field(None, ge=0)
    val_shards: int | None = Field(None, ge=0)


class LegacyTraining(Record, frozen=True, extra="ignore"):
    """The hyper-parameters the original kept; all optional."""

    max_iters: int | None = Field(None, ge=1)
    eval_interval: int | None = Field(None, ge=1)
    eval_iters: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0)


class LegacyState(Record, frozen=True, extra="ignore"):
    """training_state.json of the original's folder format."""

    step: int | None = Field(None, ge=0)
    training_config: LegacyTraining = LegacyTraining()
    optimizer_file: str | None = None

    def training(self, batch_size: int) -> TrainingConfig:
        """The hyper-parameters to go on with: what was kept, and defaults for the rest.

        Raises:
            CheckpointError: for values that no run has.
        """
        kept = self.training_config.model_dump(exclude_none=True)
        return TrainingConfig.parse({"batch_size": batch_size} | kept, where="its training", error=CheckpointError)


def legacy_data(spec: TokenizerSpec) -> DataConfig:
    """The original did not record its text; only the tokenization is known."""
    return DataConfig(tokenization=spec.kind)
