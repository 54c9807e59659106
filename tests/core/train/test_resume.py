"""A resumed run equals an unbroken run, bit for bit, and a stopped one loses nothing."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.snapshot import Contents
from mypt.core.checkpoint.state import MODEL_FILE, OPTIMIZER_FILE
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.train.run import train
from mypt.errors import CheckpointError, DataError, DivergedError, UsageError
from mypt.events import Event, Finished, RunPlanned, Saved, StepDone, Warned
from mypt.records.model import ModelConfig
from mypt.records.run import RunConfig

# A process of its own, with hashes and addresses of its own: train to the end.
CHILD = """
import sys
from pathlib import Path
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.run import RunConfig
for _ in train(RunConfig.read(Path(sys.argv[1])), ModelDirectory(Path(sys.argv[2]), "model")):
    pass
"""


def run_in_child(config: RunConfig, root: Path) -> None:
    path = root.with_suffix(".json")
    path.write_text(config.as_json())
    subprocess.run([sys.executable, "-c", CHILD, str(path), str(root)], check=True, timeout=280)


def run_here(config: RunConfig, root: Path, last_step: int = 0) -> None:
    """Train to the end, or close the run after some step."""
    events = train(config, ModelDirectory(root, "model"))
    for event in events:
        if isinstance(event, StepDone) and event.step == last_step:
            events.close()
            break


def loss_chain(root: Path) -> dict[int, str]:
    """Every step's loss as hex; a step that was done twice must have given the same bits twice."""
    chain: dict[int, str] = {}
    for line in (root / "model" / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "step":
            assert chain.setdefault(entry["step"], float(entry["loss"]).hex()) == float(entry["loss"]).hex()
    return chain


def val_chain(root: Path) -> dict[int, str]:
    lines = [json.loads(line) for line in (root / "model" / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: float(line["val_loss"]).hex() for line in lines if line["event"] == "evaluated"}


def digests(root: Path) -> dict[str, str]:
    """A hash of each tensor of weights and optimizer of the newest state."""
    state = ModelDirectory(root, "model").states()[0]
    return {
        f"{file}:{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in (MODEL_FILE, OPTIMIZER_FILE)
        for name, tensor in load_tensors(state.path / file, torch.device("cpu")).items()
    }


def events_of(config: RunConfig, directory: ModelDirectory, **options: Any) -> list[Event]:
    return list(train(config, directory, **options))


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def with_model(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({}, {}),
        ({}, {"family": "modern", "n_kv_head": 1}),
        ({"kernels": "off"}, {"family": "modern", "n_kv_head": 1}),
        ({"optimizer": "muon", "learning_rate": 0.04}, {}),
        (
            {"optimizer": "muon", "learning_rate": 0.04, "micro_batch_size": 3, "precision": "bf16"},
            {"family": "modern", "n_kv_head": 1},
        ),
        ({"precision": "fp16"}, {}),
        ({"compile": "on", "micro_batch_size": 2}, {"family": "modern", "n_kv_head": 1}),
    ],
    ids=[
        "gpt2",
        "modern",
        "modern, without kernels",
        "gpt2 by muon",
        "modern by muon, in parts, bf16",
        "gpt2, fp16",
        "modern, in parts, compiled",
    ],
)
def test_resumed_run_equals_unbroken_run(
    tiny_run: RunConfig, tmp_path: Path, changes: dict[str, Any], model: dict[str, Any]
) -> None:
    run = with_model(with_training(tiny_run, **changes), **model)
    unbroken, resumed = tmp_path / "unbroken", tmp_path / "resumed"
    run_here(run, unbroken)
    run_here(run, resumed, last_step=30)
    assert ModelDirectory(resumed, "model").states()[0].step == 30
    run_in_child(run, resumed)
    assert loss_chain(resumed) == loss_chain(unbroken)
    assert len(loss_chain(unbroken)) == 60
    assert val_chain(resumed) == val_chain(unbroken)
    assert digests(resumed) == digests(unbroken)


def test_the_same_command_gives_the_same_losses_twice(tiny_run: RunConfig, tmp_path: Path) -> None:
    run_here(tiny_run, tmp_path / "one")
    run_in_child(tiny_run, tmp_path / "two")
    assert loss_chain(tmp_path / "one") == loss_chain(tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_another_seed_gives_other_losses(tiny_run: RunConfig, tmp_path: Path) -> None:
    events_of(with_training(tiny_run, max_iters=3), ModelDirectory(tmp_path / "one", "model"))
    events_of(with_training(tiny_run, max_iters=3, seed=2), ModelDirectory(tmp_path / "two", "model"))
    assert loss_chain(tmp_path / "one") != loss_chain(tmp_path / "two")


def test_dropout_changes_the_training_loss(tiny_run: RunConfig, tmp_path: Path) -> None:
    events_of(with_training(tiny_run, max_iters=2), ModelDirectory(tmp_path / "with", "model"))
    events_of(
        with_model(with_training(tiny_run, max_iters=2), dropout=0.0), ModelDirectory(tmp_path / "without", "model")
    )
    assert loss_chain(tmp_path / "with") != loss_chain(tmp_path / "without")


def test_training_learns(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    losses = [event.loss for event in events_of(tiny_run, directory) if isinstance(event, StepDone)]
    assert losses[-1] < losses[0] - 0.8


def test_closing_the_iterator_saves_the_current_step(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events = train(tiny_run, directory)
    for event in events:
        if isinstance(event, StepDone) and event.step == 7:
            break
    events.close()
    assert directory.states()[0].step == 7
    directory.states()[0].verify()


def test_closing_after_any_event_and_going_on_gives_the_unbroken_metrics(tiny_run: RunConfig, tmp_path: Path) -> None:
    short = with_training(tiny_run, max_iters=4, eval_interval=2, save_interval=3)
    whole = ModelDirectory(tmp_path / "whole", "model")
    unbroken = events_of(short, whole)
    for index in range(1, len(unbroken)):
        root = tmp_path / str(index)
        events = train(short, ModelDirectory(root, "model"))
        for _ in range(index):
            next(events)
        events.close()
        events_of(short, ModelDirectory(root, "model"))
        assert loss_chain(root) == loss_chain(tmp_path / "whole")
        assert val_chain(root) == val_chain(tmp_path / "whole")
        assert digests(root) == digests(tmp_path / "whole")


def test_a_stop_request_saves_and_says_so(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    seen: list[Event] = []
    for event in train(tiny_run, directory, stop=lambda: any(isinstance(e, StepDone) and e.step == 5 for e in seen)):
        seen.append(event)  # noqa: PERF402 - the stop reads the list while it grows
    assert isinstance(seen[-2], Saved)
    assert seen[-2].step == 5
    assert isinstance(seen[-1], Finished)
    assert seen[-1].reason == "stopped"


def test_a_finished_run_says_so_and_a_longer_one_goes_on(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    short = with_training(tiny_run, max_iters=5)
    events_of(short, directory)
    again = events_of(short, directory)
    assert isinstance(again[-1], Finished)
    assert again[-1].reason == "already complete"
    longer = events_of(with_training(tiny_run, max_iters=8), directory)
    assert [event.step for event in longer if isinstance(event, StepDone)] == [6, 7, 8]


@pytest.mark.parametrize("change", [{"n_layer": 3}, {"block_size": 16}, {"n_head": 1}, {"family": "modern"}])
def test_another_architecture_is_refused_with_the_differing_keys(
    tiny_run: RunConfig, directory: ModelDirectory, change: dict[str, Any]
) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    before = digests(directory.path.parent)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        events_of(with_model(tiny_run, **change), directory)
    assert digests(directory.path.parent) == before


def test_another_optimizer_goes_on_with_the_weights_and_says_that_it_begins_anew(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    for optimizer, step in (("muon", 4), ("adamw", 6)):
        events = events_of(with_training(tiny_run, max_iters=step, optimizer=optimizer), directory)
        assert any(isinstance(event, Warned) and f"is {optimizer} now" in event.message for event in events)
        assert [event.step for event in events if isinstance(event, StepDone)] == [step - 1, step]
        assert directory.states()[0].training().training.optimizer == optimizer
        again = events_of(with_training(tiny_run, max_iters=step, optimizer=optimizer), directory)
        assert not any(isinstance(event, Warned) for event in again)


def test_dropout_may_change_between_runs(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    events_of(with_model(with_training(tiny_run, max_iters=3), dropout=0.0), directory)
    assert directory.states()[0].step == 3


def test_fresh_sets_the_old_model_aside_and_deletes_nothing(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=4), directory)
    before = digests(directory.path.parent)
    events = events_of(with_training(tiny_run, max_iters=2), directory, fresh=True)
    assert any(isinstance(event, Warned) and "set aside" in event.message for event in events)
    assert directory.states()[0].step == 2
    aside = next(path for path in directory.path.parent.iterdir() if path.name.startswith("model.old-"))
    aside.rename(aside.with_name("again"))
    aside.with_name("again").rename(directory.path.parent.parent / "model")
    assert digests(directory.path.parent.parent) == before


def test_a_broken_newest_state_is_set_aside_and_the_one_before_gives_the_same_end(
    tiny_run: RunConfig, tmp_path: Path
) -> None:
    events_of(tiny_run, ModelDirectory(tmp_path / "whole", "model"))
    broken = ModelDirectory(tmp_path / "broken", "model")
    events_of(tiny_run, broken)
    weights = broken.states()[0].path / MODEL_FILE
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    events = events_of(tiny_run, broken)
    warning = next(event for event in events if isinstance(event, Warned))
    assert "step-00000060" in warning.message
    assert any(path.name.startswith("step-00000060.broken-") for path in broken.path.iterdir())
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


def test_init_from_model_starts_with_its_weights_at_step_0(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=4), directory)
    child = ModelDirectory(directory.path.parent, "child")
    frozen = with_training(tiny_run, max_iters=1, learning_rate=1e-30, weight_decay=0.0)
    events_of(frozen, child, init_from=directory)
    assert child.states()[0].step == 1
    assert child.states()[0].training().initialized_from == "model"
    weights = [load_tensors(each.states()[0].path / MODEL_FILE, torch.device("cpu")) for each in (directory, child)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_init_from_model_takes_a_shorter_but_no_longer_context(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    shorter = with_model(with_training(tiny_run, max_iters=1), block_size=16)
    events_of(shorter, ModelDirectory(directory.path.parent, "shorter"), init_from=directory)
    with pytest.raises(CheckpointError, match="block_size"):
        events_of(
            with_model(shorter, block_size=64), ModelDirectory(directory.path.parent, "longer"), init_from=directory
        )


def test_init_from_a_model_with_rotary_positions_takes_any_context(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    modern = with_model(with_training(tiny_run, max_iters=2), family="modern")
    events_of(modern, directory)
    for block_size in (16, 64):
        child = ModelDirectory(directory.path.parent, f"child-{block_size}")
        events_of(with_model(modern, block_size=block_size), child, init_from=directory)
        assert child.states()[0].config().block_size == block_size
    with pytest.raises(CheckpointError, match="family = gpt2"):
        events_of(tiny_run, ModelDirectory(directory.path.parent, "other"), init_from=directory)


def test_another_tokenization_than_the_models_is_refused(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    other = tiny_run.model_copy(update={"data": tiny_run.data.model_copy(update={"tokenization": "byte"})})
    with pytest.raises(UsageError, match="tokenization"):
        events_of(other, directory)


def test_text_with_unknown_characters_is_refused_by_name(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Path
) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    text_file.write_text(text_file.read_text(encoding="utf-8") + "Ω", encoding="utf-8")
    with pytest.raises(DataError, match="Ω"):
        events_of(tiny_run, directory)


def test_changed_text_is_told(tiny_run: RunConfig, directory: ModelDirectory, text_file: Path) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    text_file.write_text(text_file.read_text(encoding="utf-8") * 2, encoding="utf-8")
    events = events_of(with_training(tiny_run, max_iters=3), directory)
    assert any(isinstance(event, Warned) and "text" in event.message for event in events)


def poisoned(whole: ModelDirectory, value: float) -> None:
    """Publish the newest state again with `value` in its final norm: sound on disk, wild in use."""
    state = whole.states()[0]
    weights = load_tensors(state.path / MODEL_FILE, torch.device("cpu"))
    weights["final_norm.weight"].fill_(value)
    moments = load_tensors(state.path / OPTIMIZER_FILE, torch.device("cpu"))
    training = state.training().model_copy(update={"val_step": None})
    whole.publish(Contents(state.config(), state.tokenizer(), training, weights, moments))


@pytest.mark.parametrize("value", [3e38, 1e38])
def test_what_is_no_number_ends_the_run_and_is_never_saved(
    tiny_run: RunConfig, directory: ModelDirectory, value: float
) -> None:
    """Neither a NaN loss, nor a finite loss with an infinite gradient, also where no loss is logged."""
    events_of(with_training(tiny_run, max_iters=2), directory)
    poisoned(directory, value)
    wild = with_training(tiny_run, max_iters=6, save_interval=1, eval_interval=6, log_interval=1000)
    with pytest.raises(
        DivergedError, match=r"step 6 with samples 20 to 23: .*Left out for that so far: steps 3, 4, 5, 6"
    ):
        events_of(wild, directory)
    assert [state.step for state in directory.states()] == [2]


def test_a_validation_loss_that_is_no_number_is_diverged_too(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=20), directory)
    poisoned(directory, 3e38)  # its evaluation is still to be done
    with pytest.raises(DivergedError, match="validation loss is nan at step 20"):
        events_of(tiny_run, directory)


def test_the_state_kept_as_best_was_evaluated_itself(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=30, eval_interval=10, save_interval=5), directory)
    for state in directory.states():
        training = state.training()
        assert (training.val_step == state.step) == (state.step % 10 == 0)
    vals = {step: float.fromhex(loss) for step, loss in val_chain(directory.path.parent).items()}
    assert min(vals, key=lambda step: vals[step]) in [state.step for state in directory.states()]


def test_fresh_keeps_the_old_model_when_the_new_run_cannot_begin(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    missing = tiny_run.model_copy(update={"data": tiny_run.data.model_copy(update={"input_files": ("missing.txt",)})})
    with pytest.raises(DataError):
        events_of(missing, directory, fresh=True)
    assert directory.states()[0].step == 2


def test_a_fresh_model_may_start_from_its_own_old_weights(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    events_of(with_training(tiny_run, max_iters=2), directory)
    events_of(with_training(tiny_run, max_iters=1), directory, fresh=True, init_from=directory)
    assert directory.states()[0].training().initialized_from == "model"


def test_torchs_settings_are_the_callers_again_after_a_run(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    events_of(with_training(tiny_run, max_iters=1), directory)
    assert torch.are_deterministic_algorithms_enabled() == before


def test_runs_of_one_process_may_overlap(tiny_run: RunConfig, tmp_path: Path) -> None:
    alone = ModelDirectory(tmp_path / "alone", "model")
    events_of(with_training(tiny_run, max_iters=6), alone)
    long, short = (
        train(with_training(tiny_run, max_iters=steps), ModelDirectory(tmp_path / name, "model"))
        for name, steps in (("long", 6), ("short", 2))
    )
    next(event for event in long if isinstance(event, StepDone))
    list(short)
    assert torch.are_deterministic_algorithms_enabled()
    list(long)
    assert not torch.are_deterministic_algorithms_enabled()
    assert digests(tmp_path / "long") == digests(tmp_path / "alone")


def test_another_batch_size_goes_on_at_the_same_place_in_the_data(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    events_of(with_training(tiny_run, max_iters=3, batch_size=4), directory)
    events_of(with_training(tiny_run, max_iters=5, batch_size=2), directory)
    assert directory.states()[0].training().samples_seen == 3 * 4 + 2 * 2


def test_the_plan_counts_epochs_and_coverage(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    plan = next(
        event for event in events_of(with_training(tiny_run, max_iters=2), directory) if isinstance(event, RunPlanned)
    )
    assert plan.tokens_per_step == 4 * 32
    assert plan.coverage == pytest.approx(2 * 4 * 32 / plan.train_tokens)
    assert plan.epochs == pytest.approx(2 * 4 / (plan.train_tokens // 32 - 1))
    assert plan.parameters == ModelConfig.read(directory.states()[0].path / "config.json").parameters


def test_a_text_shorter_than_a_block_says_how_to_fix_it(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Path
) -> None:
    text_file.write_text("too short", encoding="utf-8")
    with pytest.raises(DataError, match="one block needs 33") as caught:
        events_of(tiny_run, directory)
    assert "--block-size" in caught.value.hint


def test_a_validation_split_shorter_than_a_block_says_how_to_fix_it(
    tiny_run: RunConfig, directory: ModelDirectory, text_file: Path
) -> None:
    text_file.write_text("short text. " * 20, encoding="utf-8")
    with pytest.raises(DataError, match="validation split") as caught:
        events_of(tiny_run, directory)
    assert "--val-fraction 0" in caught.value.hint


def test_without_a_validation_split_training_goes_on_without_evaluation(
    tiny_run: RunConfig, directory: ModelDirectory
) -> None:
    whole = with_training(tiny_run, max_iters=3)
    whole = whole.model_copy(update={"data": whole.data.model_copy(update={"val_fraction": 0.0})})
    finished = events_of(whole, directory)[-1]
    assert isinstance(finished, Finished)
    assert finished.val_loss is None
