"""Damage of every kind in every file of a saved state: found, named, set aside; and nothing else is taken for it."""

import errno
import hashlib
import io
import json
import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from mypt.core.checkpoint.snapshot import Contents, Snapshot, open_snapshot, read_newest
from mypt.core.checkpoint.state import (
    ALL_FILES,
    CONFIG_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    DamagedStateError,
    State,
)
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.checkpoint.tensors import load_tensors
from mypt.core.generate.loaded import load_model
from mypt.core.train.run import train
from mypt.errors import CheckpointError
from mypt.records.model import ModelConfig
from mypt.records.run import DataConfig, RunConfig, TrainingConfig
from states import publish, steps
from support import Mypt, tale

FLIPS = 12_000 if os.environ.get("MYPT_CHAOS") else 1_200
EVERY_FILE = [*ALL_FILES, MANIFEST_FILE]
each_file = pytest.mark.parametrize("name", EVERY_FILE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two states of a small model, at steps 4 and 6, and its text beside them."""
    home = tmp_path_factory.mktemp("trained")
    (home / "tale.txt").write_text(tale(300), encoding="utf-8")
    config = RunConfig(
        model=ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=32, dropout=0.1),
        training=TrainingConfig(batch_size=4, max_iters=6, eval_interval=4, save_interval=2, device="cpu"),
        data=DataConfig(input_files=(str(home / "tale.txt"),), tokenization="char"),
    )
    for _ in train(config, ModelDirectory(home / "checkpoints", "model")):
        pass
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(trained, tmp_path / "home")


@pytest.fixture
def model(home: Path) -> ModelDirectory:
    return ModelDirectory(home / "checkpoints", "model")


def is_found(state: State) -> bool:
    """Whether verifying tells damage, and nothing else."""
    try:
        state.verify()
    except DamagedStateError as problem:
        return str(state.path) in problem.message
    return False


def flipped(whole: bytes, bit: int) -> bytes:
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


@each_file
def test_every_flipped_bit_is_found(model: ModelDirectory, name: str) -> None:
    state, chance = model.states()[0], random.Random(name)
    path = state.path / name
    whole = path.read_bytes()
    bits = chance.sample(range(len(whole) * 8), min(len(whole) * 8, FLIPS // len(EVERY_FILE)))
    unnoticed: list[int] = []
    for bit in bits:
        path.write_bytes(flipped(whole, bit))
        if not is_found(state):
            unnoticed.append(bit)
    assert unnoticed == []
    assert len(bits) >= 200
    path.write_bytes(whole)
    state.verify()


@each_file
def test_every_cut_lengthened_or_missing_file_is_found(model: ModelDirectory, name: str) -> None:
    state, chance = model.states()[0], random.Random(name)
    path = state.path / name
    whole = path.read_bytes()
    for length in (0, len(whole) - 2, *(chance.randrange(len(whole) - 2) for _ in range(20))):
        path.write_bytes(whole[:length])
        assert is_found(state), length
    for more in (b"\0", b"x", whole):
        path.write_bytes(whole + more)
        assert is_found(state), more[:1]
    path.unlink()
    assert is_found(state)
    path.mkdir()
    assert is_found(state)


@each_file
def test_every_file_of_another_step_is_found(model: ModelDirectory, name: str) -> None:
    new, old = model.states()
    mine, other = (new.path / name).read_bytes(), (old.path / name).read_bytes()
    (new.path / name).write_bytes(other)
    (old.path / name).write_bytes(mine)
    assert is_found(new) == is_found(old) == (mine != other)
    assert (mine == other) == (name in {CONFIG_FILE, "tokenizer.json"})


def test_a_whole_state_under_another_steps_name_is_found(model: ModelDirectory) -> None:
    state = State(model.states()[0].path.rename(model.path / "step-00000099"))
    with pytest.raises(DamagedStateError, match="the manifest belongs to step 6"):
        state.verify()


@pytest.mark.parametrize("name", [MODEL_FILE, OPTIMIZER_FILE, MANIFEST_FILE])
def test_a_resumed_run_passes_over_a_broken_state_and_ends_with_the_bits_of_an_unbroken_one(
    home: Path, model: ModelDirectory, name: str, mypt: Mypt
) -> None:
    damaged = model.states()[0].path
    unbroken = tensors_of(State(damaged))
    path = damaged / name
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size * 4))
    done = mypt("train", "--checkpoint-dir", home / "checkpoints", "--model-name", "model")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert str(path) in told
    assert "kept as step-00000006.broken-" in told
    assert len(list(model.path.glob("step-00000006.broken-*"))) == 1
    assert steps(model) == [6, 4]
    model.states()[0].verify()
    assert tensors_of(model.states()[0]) == unbroken


def tensors_of(state: State) -> dict[str, str]:
    return {
        f"{file}:{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for file in (MODEL_FILE, OPTIMIZER_FILE)
        for name, tensor in load_tensors(state.path / file, torch.device("cpu")).items()
    }


def names_under(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


@pytest.mark.parametrize("refusal", ["EACCES", "EPERM", "EMFILE", "ENFILE", "ESTALE", "ENOMEM", "ETIMEDOUT"])
@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL_FILE])
def test_a_file_that_cannot_be_read_now_is_no_damage(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch, refusal: str, name: str
) -> None:
    before, real = names_under(model.path), io.open

    def refuse(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file).endswith(name):
            raise OSError(getattr(errno, refusal), os.strerror(getattr(errno, refusal)), str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr(io, "open", refuse)
    for quarantine in (True, False):
        with pytest.raises(CheckpointError, match=f"{name}: cannot read it") as caught:
            model.newest(ALL_FILES, pytest.fail, quarantine=quarantine)
        assert not isinstance(caught.value, DamagedStateError)
    monkeypatch.undo()
    assert names_under(model.path) == before


def test_a_dying_disk_is_damage(model: ModelDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    real, dying = io.open, model.states()[0].path / MODEL_FILE

    def refuse(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file) == str(dying):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr(io, "open", refuse)
    warnings: list[str] = []
    state = model.newest(ALL_FILES, warnings.append, quarantine=True)
    assert state is not None
    assert state.step == 4
    assert "Input/output error" in warnings[0]


def reseal(state: State, **changes: Any) -> None:
    """Give a state a manifest that vouches for what is there now, but for the changes."""
    content: dict[str, Any] = json.loads((state.path / MANIFEST_FILE).read_text())
    for name in content["files"]:
        data = (state.path / name).read_bytes()
        content["files"][name] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    content |= changes
    del content["checksum"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    (state.path / MANIFEST_FILE).write_text(json.dumps(content))


def test_a_resealed_state_is_what_its_manifest_says(model: ModelDirectory) -> None:
    reseal(model.states()[0])
    model.states()[0].verify()


@pytest.mark.parametrize("name", [CONFIG_FILE, MODEL_FILE])
def test_a_manifest_must_name_every_file_of_a_model(model: ModelDirectory, name: str) -> None:
    state = model.states()[0]
    files = state.manifest().model_dump(mode="json")["files"]
    del files[name]
    reseal(state, files=files)
    with pytest.raises(DamagedStateError, match="is not in the manifest"):
        state.verify()


@pytest.mark.parametrize(
    "name", ["../x", "/x", "/etc/passwd", "a\0b", "a/b", "a\\b", "", ".", "..", ".hidden", "C:x", "x" * 200, "é"]
)
def test_a_manifest_names_siblings_only(model: ModelDirectory, name: str) -> None:
    state = model.states()[0]
    before = names_under(model.path)
    files = state.manifest().model_dump(mode="json")["files"]
    reseal(state, files=files | {name: {"size_bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(CheckpointError, match="is no plain file name"):
        model.newest(ALL_FILES, pytest.fail, quarantine=True)
    assert names_under(model.path) == before


def test_a_state_of_a_later_version_is_no_damage(model: ModelDirectory) -> None:
    before = names_under(model.path)
    reseal(model.states()[0], format_version=2)
    with pytest.raises(CheckpointError, match="format_version") as caught:
        model.newest(ALL_FILES, pytest.fail, quarantine=True)
    assert not isinstance(caught.value, DamagedStateError)
    assert names_under(model.path) == before


def test_facts_that_do_not_belong_together_are_told(model: ModelDirectory) -> None:
    state = model.states()[0]
    state.config().model_copy(update={"vocab_size": 5}).write(state.path / CONFIG_FILE)
    reseal(state)
    with pytest.raises(CheckpointError, match=r"the tokenizer has .* ids, the model a vocabulary of 5"):
        open_snapshot(model, pytest.fail)


def test_a_training_state_of_another_step_is_told(model: ModelDirectory) -> None:
    state = model.states()[0]
    state.training().model_copy(update={"step": 3}).write(state.path / "training_state.json")
    reseal(state)
    with pytest.raises(CheckpointError, match=r"training_state\.json belongs to step 3"):
        open_snapshot(model, pytest.fail)


def test_a_reader_whose_state_is_retired_meanwhile_reads_the_newest(directory: ModelDirectory) -> None:
    publish(directory, 1)
    tries: list[int] = []

    def read(snapshot: Snapshot) -> int:
        tries.append(snapshot.state.step)
        for step in range(2, 5):
            if len(tries) == 1:
                publish(directory, step)
                directory.retire()
        load_tensors(snapshot.state.path / MODEL_FILE, torch.device("cpu"))
        return snapshot.state.step

    assert read_newest(directory, read, pytest.fail) == 4
    assert tries == [1, 4]


def test_a_state_that_is_retired_while_it_is_verified_is_not_told_as_broken(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(directory, 1)
    real = io.open

    def late(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file).endswith(MANIFEST_FILE):
            monkeypatch.undo()
            for step in range(2, 5):
                publish(directory, step)
                directory.retire()
        return real(file, *rest, **options)

    monkeypatch.setattr(io, "open", late)
    state = directory.newest(ALL_FILES, pytest.fail, quarantine=False)
    assert state is not None
    assert state.step == 4


def test_a_model_can_always_be_read_while_it_is_trained(model: ModelDirectory) -> None:
    """A training that saves as fast as it can, and readers that load meanwhile."""
    weights = load_tensors(model.states()[0].path / MODEL_FILE, torch.device("cpu"))
    snapshot = open_snapshot(model, pytest.fail)
    stop = threading.Event()

    def save() -> None:
        step = 7
        while not stop.is_set():
            training = snapshot.training.model_copy(update={"step": step, "val_loss": None})
            model.publish(Contents(snapshot.config, snapshot.tokenizer, training, weights))
            model.retire()
            step += 1

    writer = threading.Thread(target=save)
    writer.start()
    try:
        seen = {load_model(model, "cpu", pytest.fail).snapshot.state.step for _ in range(60)}
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 3
