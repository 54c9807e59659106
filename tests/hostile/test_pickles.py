"""No file runs code: not on any default path, and not where an old .pt file is read on purpose."""

import io
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import mypt
from commands import Told, run_commands
from mypt.core.checkpoint.legacy import convert
from mypt.core.checkpoint.state import State
from mypt.core.checkpoint.store import ModelDirectory
from mypt.errors import CheckpointError
from preparation import write_jsonl
from support import seal

SIZES = (
    *("--set", "model.n_layer=1", "--n-head", "1", "--n-embd", "8", "--block-size", "16"),
    *("--batch-size", "2", "--max-iters", "2", "--eval-iters", "1"),
)


Line = tuple[Sequence[str], set[int]]
"""A command line, and the exit codes that are right."""


class Bomb:
    """Loading it makes a file named canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def zip_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model_state_dict": {"x": Bomb()}, "config": {}, "tokenizer": {}}, buffer)
    return buffer.getvalue()


def old_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model_state_dict": {"x": Bomb()}}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def object_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, x=np.array([Bomb()], dtype=object))
    return buffer.getvalue()


def text_pickle() -> bytes:
    return pickle.dumps(Bomb(), protocol=0)


def traversal() -> bytes:
    """An archive of torch's form, with a member that would leave its folder."""
    buffer = io.BytesIO(zip_pickle())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../../canary", b"x")
    return buffer.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "zip.pt": zip_pickle,
    "old.pt": old_pickle,
    "traversal.pt": traversal,
    "array.npy": object_array,
    "arrays.npz": object_archive,
    "plain.pkl": lambda: pickle.dumps(Bomb()),
    "text.pkl": text_pickle,
}


def test_the_bombs_are_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaders: dict[str, Callable[[io.BytesIO], object]] = {
        ".pt": lambda file: torch.load(file, weights_only=False),
        ".npy": lambda file: np.load(file, allow_pickle=True),
        ".npz": lambda file: np.load(file, allow_pickle=True)["x"],
        ".pkl": lambda file: pickle.load(file),  # noqa: PLW0108 - named as the others
    }
    # Torch itself refuses an archive with paths.
    for name in BOMBS.keys() - {"traversal.pt"}:
        loaders[Path(name).suffix](io.BytesIO(BOMBS[name]()))
        assert (tmp_path / "canary").exists(), name
        (tmp_path / "canary").unlink()


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a dataset and a text that are sound, and the bombs in every shape and place."""
    folder = tmp_path_factory.mktemp("field")
    (folder / "sound.txt").write_text("some words of a sound text. " * 100)
    lines = [
        ["prepare-dataset", "sound.txt", "--out-dir", "data", "--tokenization", "byte"],
        ["train", "sound.txt", "--model-name", "sound", "--tokenization", "byte", *SIZES],
    ]
    assert [told.returncode for told in run_commands(folder, lines)] == [0, 0]
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    for suffix in ("json", "model", "tiktoken", "txt", "parquet", "bin"):
        (folder / f"named.{suffix}").write_bytes(text_pickle())
    write_bomb_in_metadata(folder / "metadata.parquet")
    models_of_bombs(folder)
    datasets_of_bombs(folder)
    return folder


def write_bomb_in_metadata(path: Path) -> None:
    """A column of pyarrow's old extension type, whose metadata was a pickle and was loaded."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Bomb())}
    schema = pa.schema([pa.field("text", pa.string(), metadata=metadata)], metadata={"pandas": pickle.dumps(Bomb(), 0)})
    pq.write_table(pa.table({"text": ["words and words " * 20] * 20}, schema=schema), path)


def models_of_bombs(folder: Path) -> None:
    root = folder / "checkpoints"
    (root / "one-file").mkdir()
    (root / "one-file" / "latest.pt").write_bytes(zip_pickle())
    (root / "old-file").mkdir()
    (root / "old-file" / "final.pt").write_bytes(old_pickle())
    legacy = Path(__file__).parents[1] / "legacy" / "bard_char_json"
    for name, bad in (("weights", "model.pt"), ("optimizer", "optimizer.pt"), ("words", "tokenizer.json")):
        shutil.copytree(legacy, root / name)
        (root / name / bad).write_bytes(zip_pickle() if bad.endswith(".pt") else text_pickle())
    state = next((root / "sound").glob("step-*"))
    for bad in ("model.safetensors", "optimizer.safetensors", "tokenizer.json", "config.json", "training_state.json"):
        copy = root / f"sealed-{Path(bad).stem}" / state.name
        shutil.copytree(state, copy)
        (copy / bad).write_bytes(text_pickle())
        seal(State(copy), bad)


def datasets_of_bombs(folder: Path) -> None:
    for bad in ("dataset.json", "tokenizer.json", "train/00000.bin", "train/00000.idx"):
        target = folder / f"data-{Path(bad).name}"
        shutil.copytree(folder / "data", target)
        found = target / bad if (target / bad).exists() else next(target.glob(f"train/*{Path(bad).suffix}"))
        found.write_bytes(text_pickle())
    nano = folder / "nano"
    nano.mkdir()
    np.arange(2000, dtype="<u2").tofile(nano / "train.bin")
    (nano / "meta.pkl").write_bytes(text_pickle())


def lines_of(field: Path) -> list[Line]:
    """Every command that takes a file, with every file it may be given, and how that may end."""
    return [*_with_files(field), *_with_models(field), *_with_datasets()]


def _with_files(field: Path) -> Iterator[Line]:
    files = [*BOMBS, *(path.name for path in sorted(field.glob("named.*")))]
    for number, name in enumerate(files):
        # A pickle of letters alone is a text like any other: it is learned, and does nothing.
        as_text = {0, 3} if name.startswith(("named", "text")) else {3}
        # And its bytes are ids like any others.
        as_ids = {0, 3} if name.endswith(".bin") else {3}
        yield from [
            (["convert-legacy", "--model-name", "new", "--checkpoint", name], {4}),
            (["inspect", name], {3, 4}),
            (["train", name, "--model-name", f"m{number}", "--tokenization", "byte", *SIZES], as_text),
            (["train", "sound.txt", "--model-name", f"t{number}", "--tokenization", name, *SIZES], {3}),
            (["train", "--dataset-dir", name, "--model-name", f"d{number}", *SIZES], as_ids),
            (["train", "sound.txt", "--config-file", name, "--model-name", f"c{number}"], {2}),
            (["prepare-dataset", name, "--out-dir", f"o{number}", "--tokenization", "byte"], as_text),
            (["tokenizer", "import", name, "--out", f"i{number}.json"], {3}),
            (["tokenizer", "show", name], {3}),
            (["import-dataset", name, "--out-dir", f"p{number}", "--tokenization", "byte"], as_ids),
            (["verify", name], {2, 3, 4}),
            (["params", "--config-file", name], {2}),
        ]


def _with_models(field: Path) -> Iterator[Line]:
    for name in sorted(path.name for path in (field / "checkpoints").iterdir() if path.is_dir()):
        if name == "sound":
            continue
        is_old, is_sealed = not name.startswith("sealed"), name.startswith("sealed")
        # Generation leaves the optimizer alone.
        is_whole = {0} if name == "sealed-optimizer" else {4}
        yield from [
            (["generate", "--model-name", name, "--prompt", "a", "--max-new-tokens", "1"], is_whole),
            (["inspect", name], {4} if is_old and name != "optimizer" else {0, 4}),
            (["verify", name], {0} if is_sealed else {4}),
            (["train", "sound.txt", "--model-name", name, "--max-iters", "3"], {4}),
            (["train", "sound.txt", "--init-from-model", name, "--model-name", f"from-{name}", *SIZES], is_whole),
        ]
        if is_old:
            yield ["convert-legacy", "--model-name", name], {4}
    yield ["convert-legacy", "--all"], {4}


def _with_datasets() -> Iterator[Line]:
    for name in ("data-dataset.json", "data-tokenizer.json", "data-00000.bin", "data-00000.idx", "nano"):
        yield from [
            (["train", "--dataset-dir", name, "--model-name", f"x-{name}", "--document-mask", *SIZES], {3}),
            (["verify", name], {3}),
            (["inspect", name], {0, 3}),
            (["import-dataset", name, "--out-dir", f"imported-{name}"], {2, 3}),
            # Packing reads the shards and nothing else.
            (["compress", name], {0, 3}),
        ]
    yield from [
        (["prepare-dataset", "metadata.parquet", "--out-dir", "parquet", "--tokenization", "byte"], {0, 3}),
        (["prepare-dataset", "hf://pandas?data_files=plain.pkl", "--out-dir", "hf", "--tokenization", "byte"], {3}),
    ]


def test_no_command_runs_what_is_hidden_in_a_file(field: Path) -> None:
    lines = lines_of(field)
    canary = "import pathlib; results[-1] = (*results[-1][:2], str(pathlib.Path('canary').exists()))"
    results = run_commands(field, [line for line, _ in lines], after=canary)
    assert not (field / "canary").exists(), [told.line for told in results if told.stdout == "True"][:1]
    wrong = [(told, codes) for told, (_, codes) in zip(results, lines, strict=True) if told.returncode not in codes]
    assert not wrong, "\n".join(f"{told.line}: {told.returncode} not {codes}: {told.stderr}" for told, codes in wrong)
    for told in results:
        assert "bug" not in told.stderr, told
        assert "Traceback" not in told.stderr, told
        assert "UserWarning" not in told.stderr, told
        assert told.returncode == 0 or "Error: " in told.stderr, told
        assert told.returncode == 2 or told.line[0] != "tokenizer" or told.line[2] in told.stderr, told


# An old checkpoint that runs nothing, and would take all memory or end in nonsense.


@pytest.fixture
def content(legacy: Path) -> dict[str, Any]:
    return torch.load(legacy / "bard_char" / "latest.pt", weights_only=True)


def refused(legacy: Path, content: object, match: str) -> None:
    path = legacy / "bard_char" / "latest.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=match):
        list(convert(path, ModelDirectory(legacy, "bard_char"), dry_run=False))
    assert not list((legacy / "bard_char").glob("step-*"))


def test_a_config_of_any_size_builds_nothing(legacy: Path, content: dict[str, Any]) -> None:
    content["config"] |= {"n_layer": 1000, "n_embd": 2**16, "vocab_size": 2**22}
    refused(legacy, content, "do not fit its config")
    content["config"] |= {"n_layer": 10**9, "n_embd": 2**20, "vocab_size": 2**30}
    refused(legacy, content, "its config:\nn_layer = 1000000000")


def test_tensors_that_repeat_one_number_claim_too_much(legacy: Path, content: dict[str, Any]) -> None:
    content["model_state_dict"]["lm_head.weight"] = torch.zeros(1).expand(10**6, 10**6)
    refused(legacy, content, "its tensors claim 4,000,")


@pytest.mark.parametrize("value", [3, "text", None, torch.zeros(3, dtype=torch.int64), torch.zeros(2, 2).to_sparse()])
def test_weights_that_are_none_are_refused(legacy: Path, content: dict[str, Any], value: object) -> None:
    content["model_state_dict"]["lm_head.bias"] = value
    refused(legacy, content, "something else than tensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_model_is_not_converted(legacy: Path, content: dict[str, Any], value: float) -> None:
    content["model_state_dict"]["lm_head.weight"][0, 0] = value
    refused(legacy, content, r"lm_head\.weight holds numbers that are none")


BAD_OPTIMIZERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no mapping": lambda _: [1, 2],
    "its state is none": lambda _: {"state": 3},
    "a moment is missing": lambda old: old["state"][0].pop("exp_avg"),
    "a moment of another shape": lambda old: old["state"][0].update(exp_avg=torch.zeros(2)),
    "a moment is none": lambda old: old["state"][0].update(exp_avg_sq="text"),
    "NaN": lambda old: old["state"][3]["exp_avg"].fill_(float("nan")),
    "no step": lambda old: old["state"][0].update(step="three"),
}


@pytest.mark.parametrize("name", BAD_OPTIMIZERS)
def test_an_optimizer_that_is_none_is_left_behind(legacy: Path, content: dict[str, Any], name: str) -> None:
    changed = BAD_OPTIMIZERS[name](content["optimizer_state_dict"])
    if isinstance(changed, list) or (isinstance(changed, dict) and len(changed) == 1):
        content["optimizer_state_dict"] = changed
    path = legacy / "bard_char" / "latest.pt"
    torch.save(content, path)
    list(convert(path, ModelDirectory(legacy, "bard_char"), dry_run=False))
    (state,) = (legacy / "bard_char").glob("step-*")
    assert not (state / "optimizer.safetensors").exists()


def test_an_archive_that_unpacks_to_more_than_itself_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("latest/version", "3\n")
        with archive.open("latest/data.pkl", "w", force_zip64=True) as member:
            for _ in range(200):
                member.write(bytes(10**6))
    with pytest.raises(CheckpointError, match="would unpack to 200,000,0"):
        list(convert(path, ModelDirectory(tmp_path, "model"), dry_run=False))


# Nothing is unpickled where nobody asked for it.

NO_PICKLES = """
import builtins, _pickle, pickle

class Refused(BaseException):
    pass

def refuse(*_, **__):
    raise Refused("something is unpickled")

class Unpickler:
    __init__ = load = refuse

for module in (pickle, _pickle):
    module.load = module.loads = refuse
    module.Unpickler = Unpickler
pickle._Unpickler = Unpickler
"""
NO_TORCH_PICKLES = """
import torch, torch.serialization, torch._weights_only_unpickler, sitecustomize
torch.load = torch.serialization.load = sitecustomize.refuse
torch._weights_only_unpickler.Unpickler = sitecustomize.Unpickler
torch._weights_only_unpickler.load = sitecustomize.refuse
"""


def without_pickles(folder: Path, lines: Sequence[Sequence[str]]) -> list[Told]:
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(NO_PICKLES)
    return run_commands(folder, lines, prelude=NO_TORCH_PICKLES)


def test_a_whole_life_of_a_model_needs_no_pickle(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"document {number} of {name}. " * 30 for number in range(4000)])
    prepare = "prepare-dataset a.jsonl b.jsonl --out-dir data --tokenization byte --workers 2"
    lines = [
        line.split()
        for line in (
            prepare,
            f"train --dataset-dir data --document-mask {' '.join(SIZES)}",
            "train --max-iters 4",
            "generate --prompt a --max-new-tokens 4",
            "inspect",
            "inspect data",
            "verify default",
            "verify data",
            "compress data",
            "train --max-iters 5",
            f"train a.jsonl --model-name text --tokenization char {' '.join(SIZES)}",
            "train --model-name text --max-iters 3",
            "tokenizer train a.jsonl --out own.json --vocab-size 300",
            "tokenizer test own.json hello",
            f"train a.jsonl --model-name own --tokenization own.json {' '.join(SIZES)}",
            "params",
            "configs",
        )
    ]
    for told in without_pickles(tmp_path, lines):
        assert told.returncode == 0, told


def test_the_refusal_is_live(tmp_path: Path, legacy: Path) -> None:
    # Only an old checkpoint is unpickled, and only by the command that says so.
    with pytest.raises(AssertionError, match="something is unpickled"):
        without_pickles(tmp_path, [["convert-legacy", "--model-name", "bard_char"]])


# The source itself.

FORBIDDEN = {
    r"\bpickle\.|\bimport pickle|cPickle|\bmarshal\b|\bshelve\b|\bjoblib\b|\bdill\b": "unpickles",
    r"(?<![.\w])(eval|exec|compile)\(": "runs text as code",
    r"\byaml\.": "may build objects",
    r"shell\s*=\s*True|os\.system|os\.popen|getoutput": "starts a shell",
    r"torch\.load\((?!.*weights_only=True)": "unpickles",
    r"np\.load\((?!.*allow_pickle=False)|allow_pickle\s*=\s*True": "unpickles",
    r"trust_remote_code(?!\": False)|weights_only\s*=\s*False|extractall": "runs or unpacks what others wrote",
}


def test_the_source_has_no_way_to_run_what_it_reads() -> None:
    source = Path(mypt.__file__).parent
    found = [
        f"{path.relative_to(source)}:{number}: {line.strip()} ({why})"
        for path in sorted(source.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for pattern, why in FORBIDDEN.items()
        if re.search(pattern, line)
    ]
    assert not found, "\n".join(found)
