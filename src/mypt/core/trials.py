"""What was found out about this machine, kept between runs in the user's cache folder.

One file for each question and all that its answer depends on. The folder is a convenience: where it cannot be read or
written, or a file in it is broken, the trial is done again.
"""

import hashlib
import json
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import torch

from mypt.durable import make_directory
from mypt.errors import UsageError
from mypt.records.trial import Trial


def machine_facts() -> dict[str, str]:
    """What the speed of a CPU depends on beside the work."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "products": _products(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def find_trial(question: str, facts: dict[str, str]) -> Trial | None:
    """Look for a trial that was kept; None where there is none for just these facts."""
    with suppress(UsageError, OSError, RuntimeError):
        trial = Trial.read(_path(question, facts))
        if (trial.question, trial.facts) == (question, facts):
            return trial
    return None


def keep_trial(trial: Trial) -> None:
    """Keep a trial, if there is a place for it."""
    with suppress(OSError, RuntimeError):
        path = _path(trial.question, trial.facts)
        make_directory(path.parent)
        trial.write(path)


def cache_folder() -> Path:
    """Where MyPT keeps what it can find out again: MYPT_CACHE, or the system's place for such files.

    Raises:
        RuntimeError: where nobody knows the user's home.
    """
    given = os.environ.get("MYPT_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "mypt" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mypt"
    # By its specification a path that is not absolute does not count.
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~")
    return (base if base.is_absolute() else Path.home() / ".cache") / "mypt"


def _path(question: str, facts: dict[str, str]) -> Path:
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "trials" / f"{question}-{key}.json"


def _products() -> str:
    """What a processor has for products of matrices: its name does not always tell."""
    abilities = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch can tell
    names = ("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "bf16", "i8mm")
    return " ".join(name for name in names if abilities.get(name)) or "none"


def _processor() -> str:
    """The processor's model: what Linux and torch know of it, else what Python does."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    told = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name")  # not every torch can tell
    return str(told or platform.processor() or platform.machine())
