"""mypt verify --resume: a user's own run, proven."""

from pathlib import Path

import pytest
import torch

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.replay import replay
from mypt.core.train.run import train
from mypt.errors import CheckpointError
from mypt.events import Event, Replayed, StepDone, Warned
from mypt.records.run import RunConfig
from support import Mypt, nudged


def trained(config: RunConfig, directory: ModelDirectory, **changes: object) -> RunConfig:
    config = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    list(train(config, directory))
    return config


def listing(directory: ModelDirectory) -> list[tuple[str, int, bytes]]:
    paths = sorted(path for path in directory.path.parent.rglob("*") if path.is_file() and "lock" not in path.name)
    return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in paths]


def test_a_run_done_again_gives_the_same_bits_and_writes_nothing(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    trained(tiny_run, directory, max_iters=30, save_interval=12, eval_interval=30)
    before = listing(directory)
    replayed = list(replay(directory))[-1]
    assert isinstance(replayed, Replayed)
    assert (replayed.first_step, replayed.last_step, replayed.differing) == (24, 30, ())
    names = len(train_tensors(directory))
    assert replayed.compared == names + 5 + 1, "every tensor, five facts, and the validation loss"
    assert listing(directory) == before


def train_tensors(directory: ModelDirectory) -> list[str]:
    from safetensors.torch import load_file

    path = directory.states()[0].path
    return [name for file in ("model", "optimizer") for name in load_file(path / f"{file}.safetensors")]


def test_one_changed_bit_in_the_older_state_is_found(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    trained(tiny_run, directory, max_iters=6, save_interval=3, eval_interval=100)
    nudged(directory.states()[1], "final_norm.weight")
    replayed = list(replay(directory))[-1]
    assert isinstance(replayed, Replayed)
    assert "final_norm.weight" in replayed.differing


def test_it_tells_when_the_run_went_on_with_other_settings(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    """Steps are done again with the settings that made the newest state."""
    trained(tiny_run, directory, max_iters=6, save_interval=6, eval_interval=100)
    trained(tiny_run, directory, max_iters=9, learning_rate=1e-3, batch_size=2, eval_interval=100)
    replayed = list(replay(directory))[-1]
    assert isinstance(replayed, Replayed)
    assert replayed.differing == ()


def test_what_the_bits_depend_on_is_told_when_it_changed(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    config = trained(tiny_run, directory, max_iters=4, save_interval=2, eval_interval=100)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        events: list[Event] = list(replay(directory))
        gone_on = list(train(config.model_copy(update={"training": config.training.model_copy(
            update={"max_iters": 5})}), directory))  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    for told in (events, gone_on):
        assert any(isinstance(event, Warned) and "threads" in event.message for event in told)
    assert any(isinstance(event, StepDone) for event in gone_on)


def test_what_cannot_be_done_again_as_it_was_is_refused(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    """Where memory ran out between two states, some of the steps took fewer sequences at once."""
    trained(tiny_run, directory, max_iters=2, eval_interval=100)
    trained(tiny_run, directory, max_iters=4, eval_interval=100, micro_batch_size=2)
    with pytest.raises(CheckpointError, match="cannot be done again"):
        list(replay(directory))


def test_one_state_alone_proves_nothing(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    trained(tiny_run, directory, max_iters=2, eval_interval=100)
    with pytest.raises(CheckpointError, match="no two states"):
        list(replay(directory))


def test_the_command_says_what_was_proven_and_exits_4_where_it_was_not(
    mypt: Mypt, tiny_run: RunConfig, directory: ModelDirectory, tmp_path: Path
) -> None:
    trained(tiny_run, directory, max_iters=6, save_interval=3, eval_interval=3)
    proven = mypt("verify", "model", "--resume")
    assert proven.returncode == 0, proven.stderr
    assert "steps 4 to 6 done again" in proven.stdout
    assert "the same bits" in proven.stdout
    nudged(directory.states()[1], "final_norm.weight")
    refused = mypt("verify", "model", "--resume")
    assert refused.returncode == 4
    assert "did not give the same bits again" in refused.stderr
    assert mypt("verify", tiny_run.data.input_files[0], "--resume").returncode in {2, 4}
