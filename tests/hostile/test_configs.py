"""Config files as they should not be: refused by key and allowed range, quickly, in little memory; and what
is accepted, however extreme, can be reckoned with."""

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commandline import run_in_process
from mypt.errors import UsageError
from mypt.records.base import flatten
from mypt.records.legacy import is_legacy_config
from mypt.records.memory import StepShape
from mypt.records.presets import MOST_CONFIG_BYTES, find_config, load_preset
from mypt.records.reports import params_report
from mypt.records.resolve import Layer, resolve
from mypt.records.run import RunConfig

_MANY = 10 if os.environ.get("MYPT_CHAOS") else 1
_LIMIT_S = 10.0

KEYS = [key for key, _ in flatten(RunConfig().model_dump())]
FLAT = {"name": "old", "batch_size": 8, "block_size": 64, "vocab_size": 256, "n_embd": 64, "n_head": 4, "n_layer": 2}
FLAT |= {"dropout": 0.1, "bias": False, "device": "cpu", "description": "flat"}
NUMBERS = [
    0,
    1,
    2,
    4,
    0.5,
    -1,
    1e-400,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    2**63,
    2**64,
    10**30,
    -(10**30),
    1000,
    65_536,
]
VALUES = st.one_of(
    st.sampled_from([*NUMBERS, None, True, False, "", "x", "4", [1], {"a": 1}, "\x1b[31m", "\ud800", "a\0b", "é"]),
    # What some keys are glad of.
    st.sampled_from(["auto", "cpu", "fp32", "byte", "strict", "spaces", 8, 16, 64, 0.25, 0.9, ["a.txt"], ["nfc"]]),
    st.builds(list),
    st.builds(dict),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
    ),
)
# Marks the place of what json cannot write: numbers of 5,000 digits, and numbers past the largest float.
RAW = {"@digits": "9" * 5000, "@minus": "-" + "9" * 5000, "@past": "1e309", "@deep": "[" * 3000 + "]" * 3000}


# Leaves the value that is there: odd ones alone would seldom be accepted.
OWN = "@own"


def with_value(key: str, value: object, *, flat: bool) -> bytes:
    """A config of our form or of the original's, with one value in the place of a key."""
    if flat:
        values: dict[str, Any] = dict(FLAT)
        if value != OWN:
            values[key.rsplit(".", 1)[-1]] = value
    else:
        values = load_preset("tiny").model_dump(mode="json")
        group, _, name = key.rpartition(".")
        if value != OWN:
            (values[group] if group else values)[name] = value
    text = json.dumps(values)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()


def read(path: Path) -> RunConfig | str:
    """The config, or why it is refused."""
    started_s = time.process_time()
    try:
        where, values = find_config(str(path))
        return resolve([Layer(where, values)], where=where).config
    except UsageError as problem:
        return problem.message
    finally:
        assert time.process_time() - started_s < _LIMIT_S


def test_any_value_of_any_key_is_accepted_and_kept_or_refused_by_its_key(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    path = tmp_path / "config.json"

    @settings(max_examples=1000 * _MANY, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(key=st.sampled_from(KEYS), value=VALUES | st.sampled_from(list(RAW)) | st.just(OWN), flat=st.booleans())
    def check(key: str, value: object, flat: bool) -> None:
        key = "model." + key.rsplit(".", 1)[-1] if flat and key.rsplit(".", 1)[-1] in FLAT else key
        path.write_bytes(with_value(key, value, flat=flat))
        found = read(path)
        if isinstance(found, RunConfig):
            seen["accepted"] += 1
            assert RunConfig.parse(found.as_json(), where="again") == found
            require_numbers(found)
        else:
            seen["refused"] += 1
            assert found.startswith(f"{path}:")
            name = key.rsplit(".", 1)[-1]
            assert name in found or "nested too deeply" in found or "dataset" in found, found
            assert any(word in found for word in ("allowed:", "should ", "unknown key", "nested", "not ")), found

    check()
    assert min(seen["accepted"], seen["refused"]) > 50, seen


def require_numbers(config: RunConfig) -> None:
    """What an accepted architecture costs is a finite number, in figures and in words."""
    report = params_report(
        config.model,
        config.training,
        StepShape.of(config.model, config.training, "fp32", on_gpu=False, compiled=False),
    )
    assert report.parameters > 0
    assert math.isfinite(float(report.training_memory_bytes))
    assert "Infinity" not in report.model_dump_json()


@pytest.mark.parametrize("field", ["n_layer", "n_embd", "block_size", "vocab_size"])
@pytest.mark.parametrize("value", [1, 2, 1000, 65_536, 1_048_576, 4_194_304])
def test_the_extremes_that_are_accepted_are_reckoned_in_numbers(tmp_path: Path, field: str, value: int) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": {"n_head": 1, field: value}}), encoding="utf-8")
    outcome = run_in_process("params", "--config-file", str(path), "--json", "--batch-size", "1000000")
    refused = (
        value > 1000 if field == "n_layer" else value > {"n_embd": 65_536, "block_size": 1_048_576}.get(field, value)
    )
    refused = refused or (field == "block_size" and value == 1)
    assert outcome.code == (2 if refused else 0), outcome.err
    if not refused:
        assert json.loads(outcome.out)["training_memory_bytes"] > 0


def test_any_bytes_are_a_config_or_are_refused_by_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    whole = json.dumps(load_preset("tiny").model_dump(mode="json"), indent=1).encode()
    seen: Counter[type] = Counter()

    @settings(max_examples=400 * _MANY, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(place=st.integers(0, len(whole)), inserted=st.binary(max_size=6), dropped=st.integers(0, 3))
    def check(place: int, inserted: bytes, dropped: int) -> None:
        path.write_bytes(whole[:place] + inserted + whole[place + dropped :])
        found = read(path)
        seen[type(found)] += 1
        assert isinstance(found, RunConfig) or found.startswith(f"{path}:")

    check()
    assert min(seen[RunConfig], seen[str]) > 20, seen


MANY_KEYS = json.dumps({"training": {f"key_{number}_of_many": number for number in range(3000)}}).encode()
FILES = {
    "empty": (b"", "not valid JSON"),
    "a mark alone": (b"\xef\xbb\xbf", "not valid JSON"),
    "zeros": (b"\0" * 1000, "not valid JSON"),
    "no UTF-8": (b'{"name": "\xff"}', "not valid JSON"),
    "100,000 brackets": (b"[" * 100_000, "nested too deeply"),
    "100,000 braces": (b'{"a":' * 100_000, "nested too deeply"),
    "a key twice": (b'{"model": {"n_layer": 1, "n_layer": 2}}', "the key n_layer is there twice"),
    "3,000 unknown keys": (MANY_KEYS, "and 2,980 more"),
    "a key of 100,000 letters": (json.dumps({"k" * 100_000: 1}).encode(), "unknown key kkk"),
    "100,000 wrong files": (json.dumps({"data": {"input_files": [1] * 100_000}}).encode(), "data.input_files.0 = 1"),
    "half a character": (b'{"name": "\\ud800"}', 'name = "\\ud800": is not valid Unicode text'),
    "half a key": (b'{"a\\ud800": 1}', "is not valid Unicode text"),
    "a list": (b"[1]", "a config is a JSON object"),
    "a number of 5,000 digits": (b'{"model": {"n_layer": ' + b"9" * 5000 + b"}}", "model.n_layer = Infinity"),
    "one byte too many": (b" " * MOST_CONFIG_BYTES + b"1", "too large"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_at_once_with_what_is_wrong(tmp_path: Path, name: str) -> None:
    content, words = FILES[name]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    found = read(path)
    assert isinstance(found, str)
    assert words in found
    assert len(found) < 5000


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + with_value("model.n_layer", 3, flat=False))
    found = read(path)
    assert isinstance(found, RunConfig)
    assert found.model.n_layer == 3


def test_the_flat_form_is_told_by_its_keys() -> None:
    assert is_legacy_config(FLAT)


def small_memory() -> None:
    """A gigabyte of addresses: reading what never ends would hit this wall."""
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))


@pytest.mark.parametrize("kind", ["folder", "fifo", "/dev/zero", "/dev/stdin", "100 MB"])
def test_what_is_no_config_file_is_refused_without_waiting_or_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "100 MB":
        path.touch()
        os.truncate(path, 100_000_000)
    else:
        path = Path(kind)
    run = subprocess.run(
        [sys.executable, "-m", "mypt", "configs", "--config-file", str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False, preexec_fn=small_memory,
        stdin=subprocess.PIPE, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.startswith(f"Error: {path}: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "sizes",
    [
        "--n-layer 1000 --n-embd 65536 --n-head 1",
        "--n-layer 1000 --n-embd 16384 --n-head 1000 --set model.n_head=128",
        "--n-embd 65536 --n-head 64 --n-layer 40",
        "--set model.vocab_size=4194304 --n-embd 65536 --n-head 1 --n-layer 1",
    ],
)
def test_a_model_larger_than_the_machine_is_refused_before_it_is_built(
    tmp_path: Path, sizes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Words, and more of them. " * 40, encoding="utf-8")
    settings_ = "--config-file tiny --tokenization char --block-size 16 --device cpu"
    outcome = run_in_process("train", "text.txt", *settings_.split(), *sizes.split())
    assert outcome.code == 5, outcome.err
    assert "\nError: out of memory: " in outcome.err
    assert outcome.cpu_s < 20


@pytest.mark.parametrize(
    "extreme",
    [
        "max_iters=1000000000 --dry-run", "eval_iters=1000000", "eval_interval=1000000000",
        "log_interval=1000000", "warmup_iters=1000000000", "save_interval=1000000000", "seed=9223372036854775807",
        "learning_rate=5e-324", "grad_clip=0", "weight_decay=0", "min_lr_ratio=0", "beta1=0", "beta2=0",
        "optimizer=muon", "optimizer=muon --learning-rate 10", "schedule=wsd --set training.decay_share=0",
    ],
)  # fmt: skip
def test_an_extreme_setting_that_is_accepted_trains_or_is_one_message(
    tmp_path: Path, extreme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Words, and more of them. " * 40, encoding="utf-8")
    settings_ = (
        "--config-file tiny --tokenization char --block-size 8 --n-embd 4 --n-layer 1 --device cpu --batch-size 2"
    )
    run = "--max-iters 2 --eval-iters 1 --n-head 1"
    outcome = run_in_process(
        "train", "text.txt", *settings_.split(), *run.split(), "--set", *f"training.{extreme}".split()
    )
    assert outcome.code in {0, 2, 5}, outcome.err
    assert "This is a bug" not in outcome.err
