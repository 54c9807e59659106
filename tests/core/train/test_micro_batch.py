"""A step's batch is fixed; the machine decides in which pieces it goes, once for a run."""

from pathlib import Path
from typing import Any

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import choose_device
from mypt.core.train import memory
from mypt.core.train.memory import chosen_sequences, predicted_bytes
from mypt.core.train.run import train
from mypt.errors import MemoryShortageError
from mypt.events import Event, RunPlanned, StepDone, Warned
from mypt.records.presets import load_preset
from mypt.records.run import RunConfig

CPU = choose_device("cpu", "fp32")
ENOUGH = 2**50


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def on_a_machine_of(limit_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda: limit_bytes)


def run(config: RunConfig, directory: ModelDirectory) -> list[Event]:
    return list(train(config, directory, fit_micro_batch=True))


def first_steps(config: RunConfig, directory: ModelDirectory, steps: int) -> list[Event]:
    """Those of a run that is closed then."""
    seen = list[Event]()
    events = train(config, directory, fit_micro_batch=True)
    for event in events:
        seen.append(event)
        if isinstance(event, StepDone) and event.step == steps:
            break
    events.close()
    return seen


def plan_of(events: list[Event]) -> RunPlanned:
    return next(event for event in events if isinstance(event, RunPlanned))


def losses_of(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def files(directory: ModelDirectory) -> list[bytes]:
    state = directory.states()[0].path
    return [(state / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]


@pytest.mark.parametrize("other", ["larger", "smaller"])
def test_a_run_whose_pieces_were_chosen_goes_on_with_its_bits_on_another_machine(
    tiny_run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    config = with_training(tiny_run, batch_size=24, max_iters=6, eval_interval=3, precision="fp32", kernels="off")
    sized = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": 65})})
    fits_12 = int(predicted_bytes(sized, CPU, 14) / 0.8)
    on_a_machine_of(fits_12, monkeypatch)
    unbroken, moved = ModelDirectory(tmp_path, "unbroken"), ModelDirectory(tmp_path, "moved")
    whole = run(config, unbroken)
    assert (plan_of(whole).micro_batch_size, plan_of(whole).micro_steps) == (12, 2)
    first = first_steps(config, moved, 3)
    limit = ENOUGH if other == "larger" else int(predicted_bytes(sized, CPU, 12) * 1.01)
    on_a_machine_of(limit, monkeypatch)
    assert chosen_sequences(sized, CPU) != 12, "a new run would have other pieces here"
    second = run(config, moved)
    assert plan_of(second).micro_batch_size == 12
    assert not any(isinstance(event, Warned) for event in second)
    assert losses_of(first) + losses_of(second) == losses_of(whole)
    assert files(moved) == files(unbroken)


def test_a_run_that_goes_on_with_another_batch_gets_new_pieces(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_machine_of(ENOUGH, monkeypatch)
    run(with_training(tiny_run, batch_size=8, micro_batch_size=2, max_iters=1), directory)
    assert directory.states()[0].training().training.micro_batch_size is None, "all eight at once"
    events = run(with_training(tiny_run, batch_size=256, max_iters=2), directory)
    assert (plan_of(events).micro_batch_size, plan_of(events).micro_steps) == (128, 2)
    assert directory.states()[0].training().training.micro_batch_size == 128


@pytest.mark.parametrize("name", ["tiny", "small", "150M", "char"])
@pytest.mark.parametrize("sequences", [48, 31, 1])
def test_what_is_chosen_leaves_memory_free_and_is_as_large_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, name: str, sequences: int
) -> None:
    config = with_training(load_preset(name), batch_size=sequences)
    for limit in (predicted_bytes(config, CPU, size) for size in (2, 5, 17, 100)):
        on_a_machine_of(limit, monkeypatch)
        chosen = chosen_sequences(config, CPU)
        assert chosen * config.model.block_size <= max(4096, config.model.block_size)
        assert chosen == 1 or predicted_bytes(config, CPU, chosen) <= 0.8 * limit
        larger = min(2 * chosen + 1, sequences)
        useful = larger * config.model.block_size <= 4096
        assert chosen == sequences or not useful or predicted_bytes(config, CPU, larger) > 0.8 * limit


def test_where_not_one_sequence_fits_the_message_says_whether_checkpointing_would(
    tiny_run: RunConfig, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = load_preset("150M_1024")
    model = deep.model.model_copy(update={"n_layer": 64, "vocab_size": 65, "n_embd": 96, "n_head": 2})
    config = tiny_run.model_copy(update={"model": model})
    one = predicted_bytes(config, CPU, 1)
    checkpointed = predicted_bytes(with_training(config, checkpoint_activations=True), CPU, 1)
    assert checkpointed < one
    on_a_machine_of((one + checkpointed) // 2, monkeypatch)
    with pytest.raises(MemoryShortageError) as caught:
        run(config, directory)
    assert "--checkpoint-activations needs" in caught.value.hint
    assert "which fits" in caught.value.hint
    on_a_machine_of(checkpointed * 9 // 10, monkeypatch)
    with pytest.raises(MemoryShortageError) as caught:
        run(config, directory)
    assert "which does not fit either" in caught.value.hint
    assert not directory.path.exists()
