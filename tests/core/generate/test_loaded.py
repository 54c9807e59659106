"""A model that was loaded says what it cannot do."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import mypt
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.generate import loaded
from mypt.core.generate.loaded import load_model
from mypt.core.model.gpt import GPT
from mypt.core.train.run import train
from mypt.errors import MemoryShortageError, UsageError
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig


def test_texts_that_do_not_fit_the_memory_are_told_with_what_takes_less(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    list(train(tiny_run, directory))
    small = load_model(directory, "cpu", pytest.fail)
    # 2^47 bytes, more than a processor has addresses for, are the cache of 10,000 texts.
    shape = ModelConfig(
        family="modern", n_layer=14, n_head=2, n_embd=128, block_size=2**20, vocab_size=small.model.config.vocab_size
    )
    wide = replace(small, model=GPT(shape))
    with pytest.raises(MemoryShortageError, match="10,000 texts of up to 1,048,576 tokens") as told:
        wide.generate("The", num_samples=10_000, batch_size=10_000, max_new_tokens=2**20)
    assert "--batch-size 5000 takes less" in told.value.hint
    assert len(wide.generate("The", max_new_tokens=3)) == 3


@pytest.mark.parametrize("has_bf16", [True, False, None])
def test_auto_is_bf16_where_the_processor_has_it_and_the_choice_is_told(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch, has_bf16: bool | None
) -> None:
    list(train(tiny_run, directory))

    def computes_bf16(_device: torch.device) -> bool | None:
        return has_bf16

    monkeypatch.setattr(loaded, "computes_bf16", computes_bf16)
    found = load_model(directory, "cpu", pytest.fail, precision="auto")
    assert f", {'bf16' if has_bf16 else 'fp32'}" in found.label
    assert found.model.dtype == (torch.bfloat16 if has_bf16 else torch.float32)


@pytest.mark.parametrize(
    "settings", [{"compile": "maybe"}, {"precision": "fp8"}, {"precision": "bf16", "int8": True}], ids=str
)
def test_how_to_load_is_checked_before_anything_is_loaded(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="allowed"):
        mypt.load("a-model-that-is-not-there", **settings)
