"""mypt bench: every figure is there and holds together, what does not fit is named, and nothing is left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import clean_environment
from mypt.core.bench.machine import median_step_s
from mypt.core.bench.results import Results
from mypt.records.bench import BenchOptions, TrainingFigures
from mypt.records.budget import training_flops_per_token
from mypt.records.run import RunConfig
from support import Mypt

MINI: dict[str, dict[str, Any]] = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 300, "dropout": 0.1},
    "training": {"batch_size": 2},
}
BRIEFLY = ("--seconds", "0.2", "--rounds", "1")


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """A preset whose steps take milliseconds."""
    path = tmp_path / "mini.json"
    path.write_text(json.dumps(MINI))
    return path


def test_everything_is_measured_and_holds_together(mypt: Mypt, mini: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    run = mypt("bench", mini, *BRIEFLY, "--json", "--batch-size", "4")
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["schema"] == 1
    assert report["machine"]["kind"] == "cpu"
    assert report["machine"]["matrix_flops_per_s"] > 0
    assert report["first_step_s"]["median"] > 0
    assert report["import_torch_s"]["median"] > 0
    (row,) = report["presets"]
    assert (row["name"], row["batch_size"], row["block_size"], row["precision"]) == ("mini", 4, 32, "fp32")
    for name in ("tokens_per_s", "matrix_share", "generation_tokens_per_s", "first_token_s"):
        spread = row[name]
        assert 0 < spread["least"] == spread["median"] == spread["most"], "one round"
    assert row["matrix_share"]["median"] < 1
    assert row["mfu"] is None, "a CPU has no peak"
    assert 2**26 < row["peak_bytes"] < 2**31
    assert row["estimated_bytes"] > 0
    assert (report["peers"], report["left_out"]) == ([], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing is left behind"


PEER = """
import torch
from types import SimpleNamespace

class GPTConfig(SimpleNamespace):
    pass

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Embedding(config.vocab_size, config.vocab_size)
    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.SGD(self.parameters(), lr=learning_rate)
    def forward(self, ids, targets):
        logits = self.table(ids)
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


SECOND_PEER = """
import torch
from litgpt.config import Config

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Embedding(config.padded_vocab_size, config.vocab_size)
    def forward(self, ids):
        return self.table(ids)
"""
UTILS = """
import torch

def chunked_cross_entropy(logits, targets):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


def test_what_looks_like_a_checkout_is_run_beside_ours_and_compared(mypt: Mypt, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer" / "model.py").write_text(PEER)
    package = tmp_path / "another" / "litgpt"
    package.mkdir(parents=True)
    files = {"model": SECOND_PEER, "utils": UTILS, "config": "from types import SimpleNamespace as Config\n"}
    for name, content in files.items():
        (package / f"{name}.py").write_text(content)
    checkouts = ("--against", "peer", "--against", "another")
    run = mypt("bench", mini, *BRIEFLY, "--json", "--precision", "fp32", *checkouts)
    assert run.returncode == 0, run.stderr
    peers = json.loads(run.stdout)["peers"]
    assert [peer["name"] for peer in peers] == ["nanoGPT fp32", "litgpt fp32"]
    for peer in peers:
        assert peer["tokens_per_s"]["median"] > 0
        assert peer["ratio"]["median"] > 0


def test_people_see_a_table_and_in_one_line_what_does_not_fit(mypt: Mypt, mini: Path, tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    huge.write_text(json.dumps({"model": {"n_layer": 200, "n_head": 64, "n_embd": 16_384}}))
    run = mypt("bench", huge, mini, *BRIEFLY)
    assert run.returncode == 0, run.stderr
    for words in ("FLOP/s", "mini fp32", "tokens/s", "MiB", "first token", "start: import torch"):
        assert words in run.stdout
    assert "round 1/1  mini  training" in run.stderr
    assert run.stderr.count("huge: left out. needs ") == 1
    assert "Traceback" not in run.stderr
    assert "huge" not in run.stdout


@pytest.mark.parametrize("content", [None, "", "class GPT: pass"], ids=["nothing", "empty", "another"])
def test_what_is_no_checkout_is_refused_before_anything_is_measured(
    mypt: Mypt, mini: Path, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if content is not None:
        (folder / "model.py").write_text(content)
    refused = mypt("bench", mini, "--against", folder)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"Error: --against {folder}: no checkout of nanoGPT")
    assert "git clone" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-preset",), "neither a config file nor a preset"),
        (("tiny", "presets/tiny.json"), "two presets of the name tiny"),
        (("tiny", "--device", "tpu"), "this machine does not have it"),
        (("tiny", "--precision", "fp8"), "precision"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(mypt: Mypt, arguments: tuple[str, ...], words: str) -> None:
    refused = mypt("bench", *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_children_and_shows_what_was_measured(mini: Path, number: signal.Signals) -> None:
    mark = f"MARK_OF_A_BENCH={os.getpid()}-{number}"
    name, _, value = mark.partition("=")
    command = [sys.executable, "-m", "mypt", "bench", str(mini), "--seconds", "600", "--json"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, env=clean_environment() | {name: value}, **streams) as bench:
        try:
            assert bench.stderr is not None
            next(line for line in bench.stderr if "  start  " in line)
            deadline_s = time.monotonic() + 60
            while len(processes(mark)) < 2 and time.monotonic() < deadline_s:
                time.sleep(0.05)  # until it trains, for ten minutes
            assert len(processes(mark)) == 2
            bench.send_signal(number)
            out, err = bench.communicate(timeout=60)
        finally:
            bench.kill()
    assert bench.returncode == 128 + number
    assert "Traceback" not in err
    report = json.loads(out)
    assert report["import_torch_s"]["median"] > 0
    assert report["presets"] == []
    deadline_s = time.monotonic() + 60
    while processes(mark) and time.monotonic() < deadline_s:
        time.sleep(0.05)  # the system takes a moment for those that were killed
    assert processes(mark) == []


def processes(mark: str) -> list[str]:
    """All processes that were given a variable."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


def test_the_median_step_shrugs_off_the_first_ones_and_a_busy_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = iter([9.0, 9.0, 9.0, 1.0, 1.0, 30.0, 1.0, 1.0])
    now_s = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])

    def step() -> None:
        now_s[0] += next(times_s)

    assert median_step_s(step, 34.0) == 1.0


def test_shares_and_ratios_are_taken_round_by_round() -> None:
    """A round in which the machine was slow says as much as one in which it was fast."""
    config = RunConfig.parse(MINI, where="mini")
    results = Results(BenchOptions(configs={"mini": config}, choose=False))
    flops = training_flops_per_token(config.model)
    for speed in (1000.0, 100.0, 500.0):
        rate = 4 * flops * speed
        ours = TrainingFigures(tokens_per_s=speed, peak_bytes=1, precision="fp32", matrix_flops_per_s=rate)
        results.add("mini", "training", ours)
        results.add("mini", "nanoGPT fp32", TrainingFigures(tokens_per_s=speed / 2, peak_bytes=2))
    report = results.report()
    (row,), (peer,) = report.presets, report.peers
    assert row.tokens_per_s is not None
    assert row.matrix_share is not None
    assert peer.ratio is not None
    assert (row.tokens_per_s.median, row.tokens_per_s.least, row.tokens_per_s.most) == (500, 100, 1000)
    assert row.matrix_share.least == row.matrix_share.most == 0.25
    assert peer.ratio.least == peer.ratio.most == 2.0
