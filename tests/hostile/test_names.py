"""A model's name is one plain folder name: anything else is refused before a file is touched."""

from pathlib import Path

import pytest

from commandline import run_in_process
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.train.run import train
from mypt.records.run import RunConfig

# Refused with exit 2 wherever a name is asked for.
NAMES = [
    *(
        "",
        " ",
        ".",
        "..",
        "../x",
        "/x",
        "~",
        "~root",
        "a/b",
        "a\\b",
        "x" * 65,
        "x" * 300,
        "con",
        "NUL",
        "com1.txt",
        "a.",
    ),
    *(
        "a\0b",
        "a\nb",
        "a\n",
        ".hidden",
        "-x",
        "a b",
        "\x1b[31mred",
        "\uff4dodel",
        "mod\u0435l",
        "\ufb01",
        "a\u202eb",
        "\udcff",
        "a:b",
        "*",
        "é",
    ),
]
# {} is the place of the name.
ASKING = {
    "train": ["train", "text.txt", "--model-name={}"],
    "train --fresh": ["train", "text.txt", "--fresh", "--model-name={}"],
    "train --dry-run": ["train", "text.txt", "--dry-run", "--model-name={}"],
    "train --init-from-model": ["train", "text.txt", "--model-name=new", "--init-from-model={}"],
    "generate": ["generate", "--model-name={}"],
    "generate NAME": ["generate", "--", "{}"],
    "convert-legacy": ["convert-legacy", "--model-name={}"],
}
# These take paths too: one that is not there is no model (4), a name that cannot be is refused (2).
LOOKING = {
    "inspect": ["inspect", "--", "{}"],
    "verify": ["verify", "--", "{}"],
    "inspect --model-name": ["inspect", "--model-name={}"],
}
LOOKING["params"] = ["params", "--model-name={}"]


@pytest.fixture
def house(tmp_path: Path, tiny_run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a text, and a file outside that a name must not reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "text.txt").write_text("A text.", encoding="utf-8")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/precious.pt").write_bytes(b"bytes")
    short = tiny_run.training.model_copy(update={"max_iters": 1, "eval_iters": 1})
    for _ in train(tiny_run.model_copy(update={"training": short}), ModelDirectory(tmp_path / "checkpoints", "model")):
        pass
    return tmp_path


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in a folder: kind, size and time of change of each."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_size, about.st_mtime_ns)
    return found


def fill(words: list[str], name: str) -> list[str]:
    return [word.replace("{}", name) for word in words]


@pytest.mark.parametrize("asking", ASKING)
def test_a_name_that_is_no_folder_name_is_refused_before_anything_is_touched(house: Path, asking: str) -> None:
    before = listing(house)
    for name in NAMES:
        outcome = run_in_process(*fill(ASKING[asking], name))
        assert outcome.code == 2, (name, outcome)
        assert outcome.err.startswith("Error: model name "), (name, outcome)
        assert outcome.err.count("\n") == 2
    assert listing(house) == before


@pytest.mark.parametrize("looking", LOOKING)
def test_commands_that_look_refuse_a_name_or_read_a_path_and_touch_nothing(house: Path, looking: str) -> None:
    before = listing(house)
    for name in [
        *NAMES,
        "nobody",
        "checkpoints/model",
        "checkpoints",
        str(house),
        "checkpoints/model/metrics.jsonl",
        "x",
    ]:
        outcome = run_in_process(*fill(LOOKING[looking], name))
        assert outcome.code in ({0, 2, 3, 4} if "/" in name or name in {"x", ".", "..", "checkpoints"} else {2, 4}), (
            name,
            outcome,
        )
        assert "Traceback" not in outcome.err
        assert "This is a bug" not in outcome.err
    assert listing(house) == before


@pytest.mark.parametrize("asking", {**ASKING, **LOOKING})
def test_a_linked_model_folder_is_refused_and_what_it_points_at_is_untouched(house: Path, asking: str) -> None:
    (house / "elsewhere").mkdir()
    (house / "checkpoints/model").rename(house / "elsewhere/model")
    (house / "checkpoints/model").symlink_to(house / "elsewhere/model")
    before = listing(house)
    outcome = run_in_process(*fill((ASKING | LOOKING)[asking], "model"))
    assert outcome.code == 2
    assert "symbolic link" in outcome.err
    assert listing(house) == before


def test_a_linked_state_is_read_and_what_it_points_at_is_never_changed_or_deleted(
    house: Path, tiny_run: RunConfig
) -> None:
    directory = ModelDirectory(house / "checkpoints", "model")
    state = directory.states()[0].path
    state.rename(house / "state")
    state.symlink_to(house / "state")
    before = listing(house / "state")
    for asking in ("generate", "inspect", "verify", "params"):
        assert run_in_process(*fill((ASKING | LOOKING)[asking], "model")).code == 0
    # Hashes vouch for what is read through a link. Going on retires the linked state: the link alone.
    longer = tiny_run.training.model_copy(update={"max_iters": 6, "eval_iters": 1, "save_interval": 1})
    for _ in train(tiny_run.model_copy(update={"training": longer}), directory):
        pass
    assert max(found.step for found in directory.states()) == 6
    assert listing(house / "state") == before
