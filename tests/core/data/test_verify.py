"""verify names every file that is not what its manifest says, and no other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mypt.core.data.prepare.verb import prepare_dataset
from mypt.core.data.verify import verify_dataset
from mypt.durable import sha256_of
from mypt.events import FileVerified, Verified
from mypt.records.dataset import DATASET_FILE, read_dataset_manifest
from mypt.records.plan import PrepareConfig
from mypt.records.run import DataConfig
from support import Mypt, tale


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Six shards of byte tokens: five for training, one for validation."""
    path = tmp_path / "tale.jsonl"
    path.write_text("".join(f'{{"text": "{tale(1, seed=number).strip()}"}}\n' for number in range(300)))
    config = DataConfig(input_files=(str(path),), tokenization="byte")
    list(prepare_dataset(config, tmp_path / "data", PrepareConfig(tokens_per_shard=3000, workers=1)))
    return tmp_path / "data"


def problems(dataset: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    last = None
    for event in verify_dataset(dataset):
        if isinstance(event, FileVerified) and event.problem:
            found[Path(event.path).relative_to(dataset).as_posix()] = event.problem
        last = event
    assert isinstance(last, Verified)
    assert [Path(path).relative_to(dataset).as_posix() for path in last.damaged] == list(found)
    return found


def test_an_untouched_dataset_has_no_problem(dataset: Path) -> None:
    assert problems(dataset) == {}
    last = list(verify_dataset(dataset))[-1]
    assert isinstance(last, Verified)
    files = [path for path in dataset.rglob("*") if path.is_file()]
    assert last.files == len(files)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, Path.unlink])
@pytest.mark.parametrize("name", ["train/shard-00001.bin", "train/shard-00000.idx", "val/shard-00000.bin"])
def test_a_damaged_file_is_named_and_no_other(dataset: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(dataset / name)
    assert list(problems(dataset)) == [name]


def test_a_changed_tokenizer_is_named(dataset: Path) -> None:
    (dataset / "tokenizer.json").write_text('{"kind": "gpt2"}')
    assert list(problems(dataset)) == ["tokenizer.json"]


def test_ids_beyond_the_vocabulary_are_found_though_the_hash_is_right(dataset: Path) -> None:
    shard = dataset / "train/shard-00002.bin"
    ids = np.fromfile(shard, dtype="<u2")
    ids[7] = 400
    ids.tofile(shard)
    manifest = read_dataset_manifest(dataset)
    infos = [
        info.model_copy(update={"sha256": sha256_of(shard)}) if info.path.endswith("00002.bin") else info
        for info in manifest.train
    ]
    manifest.model_copy(update={"train": tuple(infos)}).sealed().write(dataset / DATASET_FILE)
    assert problems(dataset) == {"train/shard-00002.bin": "holds the id 400, the vocabulary ends at 256"}


def test_the_command_names_the_bad_shard_and_ends_with_3(mypt: Mypt, dataset: Path) -> None:
    sound = mypt("verify", dataset)
    assert sound.returncode == 0
    assert "all as written" in sound.stdout
    flip_a_bit(dataset / "train/shard-00001.bin")
    run = mypt("verify", dataset)
    assert run.returncode == 3
    assert "shard-00001.bin" in run.stderr
    assert "damaged" in run.stdout


def test_a_model_is_verified_too_and_a_flipped_bit_is_exit_4(mypt: Mypt, text_file: Path, tmp_path: Path) -> None:
    small = ("--n-layer", 1, "--n-head", 1, "--n-embd", 8, "--block-size", 8, "--batch-size", 1, "--max-iters", 1)
    assert mypt("train", text_file, "--tokenization", "byte", "--model-name", "m", *small).returncode == 0
    assert mypt("verify", "m").returncode == 0
    flip_a_bit(next((tmp_path / "checkpoints/m").glob("step-*/model.safetensors")))
    run = mypt("verify", "m", "--json")
    assert run.returncode == 4
    assert "model.safetensors" in run.stderr
    assert run.stdout.count('"file_verified"') >= 5


def test_what_cannot_be_read_is_a_finding_and_not_the_end(dataset: Path) -> None:
    index = dataset / "train/shard-00000.idx"
    index.unlink()
    index.mkdir()
    (dataset / "train/shard-00001.bin").unlink()
    (dataset / "train/shard-00001.bin.zst").write_bytes(b"no")
    assert set(problems(dataset)) == {"train/shard-00000.idx", "train/shard-00001.bin.zst"}
