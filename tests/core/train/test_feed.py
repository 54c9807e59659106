"""Batches made ahead are the batches; what goes wrong with them is told, and no thread is left behind."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.data.batches import Batch, Batches
from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.stream import MemoryShard, TokenStream
from mypt.core.device import choose_device
from mypt.core.train.feed import Feed
from mypt.core.train.run import train
from mypt.errors import DataError
from mypt.events import Evaluated, StepDone
from mypt.records.dataset import read_dataset_manifest
from mypt.records.run import DataConfig, RunConfig

CPU = choose_device("cpu")


def batches() -> Batches:
    return Batches(TokenStream([MemoryShard(np.arange(5000, dtype=np.uint16))]), 16, seed=1)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mypt-feed")]


@pytest.fixture
def always_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where batches take long to make."""
    monkeypatch.setattr("mypt.core.train.feed._LONG_S", -1)


@pytest.fixture(params=["always ahead", "never ahead"])
def feed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Feed:
    monkeypatch.setattr("mypt.core.train.feed._LONG_S", -1 if request.param == "always ahead" else 1e9)
    return Feed(batches().at, CPU)


def test_what_comes_ahead_is_what_comes_without(feed: Feed) -> None:
    for position in [0, 4, 8, 12, 100, 104, 0, 4]:  # in order, after a jump, and from the start again
        taken, plain = feed.take(position, 4), batches().at(position, 4)
        assert np.array_equal(taken.inputs_BT.numpy(), plain.inputs_BT)
        assert np.array_equal(taken.targets_BT.numpy(), plain.targets_BT)
        assert taken.documents_BT is None
        assert taken.inputs_BT.dtype == torch.int64
    feed.close()


@pytest.mark.usefixtures("always_ahead")
def test_the_next_batch_is_made_before_it_is_asked_for() -> None:
    asked = list[int]()

    def at(position: int, count: int) -> Batch:
        asked.append(position)
        return batches().at(position, count)

    feed = Feed(at, CPU)
    feed.take(0, 4)
    feed.close()
    assert asked in ([0], [0, 4])
    assert Feed(at, CPU).close() is None
    ahead = Feed(at, CPU)
    ahead.take(20, 4)
    deadline_s = time.monotonic() + 60
    while asked[-1] != 24 and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert asked[-1] == 24
    ahead.close()


def test_a_thread_works_ahead_only_where_a_batch_took_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mypt.core.train.feed._LONG_S", 0.3)  # on a busy machine others take long too
    seconds, makers = [0.0, 0.5, 0.0, 0.0], list[str]()

    def at(position: int, count: int) -> Batch:
        makers.append(threading.current_thread().name)
        time.sleep(seconds.pop(0))
        return batches().at(position, count)

    feed = Feed(at, CPU)
    for position in (0, 4, 8, 12):
        feed.take(position, 4)
    feed.close()
    assert ["mypt-feed" in maker for maker in makers] == [False, False, True, False]


@pytest.mark.usefixtures("always_ahead")
def test_now_and_then_a_batch_is_made_without_the_thread_to_see_how_long_it_takes() -> None:
    makers: list[str] = []

    def at(position: int, count: int) -> Batch:
        makers.append(threading.current_thread().name)
        return batches().at(position, count)

    feed = Feed(at, CPU)
    for position in range(0, 160, 4):
        feed.take(position, 4)
    feed.close()
    assert [index for index, maker in enumerate(makers) if "mypt-feed" not in maker] == [0, 16, 32]


@pytest.mark.usefixtures("always_ahead")
def test_an_error_ahead_surfaces_in_the_step_that_needs_the_batch() -> None:
    def at(position: int, count: int) -> Batch:
        if position >= 8:
            raise DataError("a shard broke")
        return batches().at(position, count)

    feed = Feed(at, CPU)
    feed.take(0, 4)
    feed.take(4, 4)
    with pytest.raises(DataError, match="a shard broke"):
        feed.take(8, 4)
    feed.close()
    assert not threads()


@pytest.fixture
def dataset(tmp_path: Path, text_file: Path) -> Path:
    config = DataConfig(input_files=(str(text_file),), tokenization="byte")
    list(prepare_dataset(config, tmp_path / "data"))
    return tmp_path / "data"


def on(config: RunConfig, *datasets: object, **training: object) -> RunConfig:
    return config.model_copy(
        update={
            "data": DataConfig(dataset_dir=tuple(map(str, datasets))),
            "training": config.training.model_copy(update=training),
        }
    )


@pytest.mark.usefixtures("always_ahead")
@pytest.mark.parametrize("ending", ["whole", "closed", "stopped"])
def test_no_thread_outlives_a_run(tiny_run: RunConfig, dataset: Path, directory: ModelDirectory, ending: str) -> None:
    steps = 0
    events = train(on(tiny_run, dataset, max_iters=8), directory, stop=lambda: ending == "stopped" and steps > 3)
    for event in events:
        steps += isinstance(event, StepDone)
        if ending == "closed" and steps > 3:
            events.close()
    assert steps == (8 if ending == "whole" else 4)
    assert not threads()


def test_a_flipped_bit_in_a_shard_is_an_error_that_names_it(
    tiny_run: RunConfig, dataset: Path, directory: ModelDirectory
) -> None:
    shard = dataset / read_dataset_manifest(dataset).train[-1].path
    content = bytearray(shard.read_bytes())
    content[1001] ^= 0x80
    shard.write_bytes(content)
    with pytest.raises(DataError, match=rf"{shard.name}: id 32,\d+ at token 500 is beyond the tokenizer's 257 ids"):
        list(train(on(tiny_run, dataset, max_iters=1000, eval_interval=1000), directory))
    assert not threads()


def test_a_mask_without_known_documents_is_refused_before_anything_is_written(
    tiny_run: RunConfig, tmp_path: Path, directory: ModelDirectory
) -> None:
    np.arange(5000, dtype="<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(DataError, match=r"train\.bin: where its documents end is not known"):
        list(train(on(tiny_run, tmp_path, document_mask=True), directory))
    assert not directory.path.exists()


def losses(config: RunConfig, directory: ModelDirectory) -> list[tuple[int, float]]:
    told = list(train(config, directory))
    found = [(event.step, event.loss) for event in told if isinstance(event, StepDone)]
    return found + [(event.step, event.val_loss) for event in told if isinstance(event, Evaluated)]


def test_a_resumed_run_on_a_masked_mixture_equals_an_unbroken_one(
    tiny_run: RunConfig, dataset: Path, tmp_path: Path
) -> None:
    for number in range(30):
        (tmp_path / f"many{number}.txt").write_text(f"A short document about {number}. " * 4, encoding="utf-8")
    other = tmp_path / "other"
    config = DataConfig(input_files=(str(tmp_path / "many*.txt"),), tokenization="byte")
    list(prepare_dataset(config, other))
    run = on(tiny_run, f"{dataset}:0.4", f"{other}:0.6", document_mask=True, max_iters=24, eval_interval=12)
    unbroken = losses(run, ModelDirectory(tmp_path / "one", "model"))
    stopped = train(run, ModelDirectory(tmp_path / "two", "model"))
    for event in stopped:
        if isinstance(event, StepDone) and event.step == 7:
            stopped.close()
    resumed = losses(run, ModelDirectory(tmp_path / "two", "model"))
    assert set(resumed) <= set(unbroken)
    assert max(resumed) == max(unbroken)
    unmasked = losses(
        run.model_copy(update={"training": run.training.model_copy(update={"document_mask": False})}),
        ModelDirectory(tmp_path / "three", "model"),
    )
    assert unmasked != unbroken
