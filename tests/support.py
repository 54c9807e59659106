"""Words that many tests share."""

import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Mypt(Protocol):
    """The real command line: arguments in, finished process out."""

    def __call__(
        self, *arguments: object, cwd: Path = ..., env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `mypt ARGUMENTS...` in a child process."""
        ...


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
