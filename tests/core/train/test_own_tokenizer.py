"""A model keeps the tokenizer it was made with, whatever file it came from."""

from pathlib import Path

import pytest

from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.tokens.build import bpe_table
from mypt.core.tokens.patterns import GPT2_PATTERN
from mypt.core.train.run import train
from mypt.errors import UsageError
from mypt.events import Event, Finished, RunPlanned
from mypt.records.run import RunConfig
from mypt.records.tokenizer import BpeSpec, Gpt2Spec


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return written(tmp_path / "own.json", 400)


def written(path: Path, pieces: int) -> Path:
    # The beginning of GPT-2's table is a table of its own.
    table = bpe_table(Gpt2Spec()).pieces[:pieces]
    BpeSpec.of(GPT2_PATTERN, table, {"<|endoftext|>": pieces}, "<|endoftext|>").write(path)
    return path


def run(
    tiny: RunConfig,
    directory: ModelDirectory,
    tokenization: str,
    steps: int,
    init_from: ModelDirectory | None = None,
) -> list[Event]:
    data = tiny.data.model_copy(update={"tokenization": tokenization})
    training = tiny.training.model_copy(update={"max_iters": steps, "eval_interval": 5})
    saved = [*directory.states(), *(init_from.states() if init_from else ())]
    model = saved[0].config() if saved else tiny.model
    config = tiny.model_copy(update={"data": data, "training": training, "model": model})
    return list(train(config, directory, init_from=init_from))


def test_its_vocabulary_is_padded(tiny_run: RunConfig, directory: ModelDirectory, own: Path) -> None:
    planned = next(event for event in run(tiny_run, directory, str(own), 2) if isinstance(event, RunPlanned))
    assert (planned.tokenizer, planned.vocab_size) == ("bpe", 448)


def test_the_same_path_or_none_goes_on_and_starts_others(
    tiny_run: RunConfig, directory: ModelDirectory, own: Path, tmp_path: Path
) -> None:
    run(tiny_run, directory, str(own), 2)
    assert isinstance(run(tiny_run, directory, str(own), 4)[-1], Finished)
    # Without the option, the model's own word for it counts, and the file may be gone.
    own.rename(tmp_path / "moved.json")
    assert directory.states()[0].training().data.tokenization == "bpe"
    assert isinstance(run(tiny_run, directory, "bpe", 6)[-1], Finished)
    for number, tokenization in enumerate(("bpe", str(tmp_path / "moved.json"))):
        other = ModelDirectory(tmp_path / "checkpoints", f"other{number}")
        assert isinstance(run(tiny_run, other, tokenization, 2, init_from=directory)[-1], Finished)
        assert other.states()[0].tokenizer() == directory.states()[0].tokenizer()


@pytest.mark.parametrize("wanted", ["another.json", "nowhere.json", "gpt2", "char"])
def test_another_tokenizer_is_refused(
    tiny_run: RunConfig, directory: ModelDirectory, own: Path, tmp_path: Path, wanted: str
) -> None:
    written(tmp_path / "another.json", 410)
    run(tiny_run, directory, str(own), 2)
    wanted = str(tmp_path / wanted) if wanted.endswith("json") else wanted
    with pytest.raises(UsageError, match=wanted):
        run(tiny_run, directory, wanted, 4)


def test_a_new_model_needs_the_file_not_the_kind(tiny_run: RunConfig, directory: ModelDirectory) -> None:
    with pytest.raises(UsageError, match="bpe"):
        run(tiny_run, directory, "bpe", 2)
