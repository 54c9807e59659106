"""The two places to print: data on stdout, prose and progress on stderr.

Markup is off: what users name (paths, prompts, presets) may hold brackets.
"""

import sys

from rich.console import Console


def data_console() -> Console:
    """Stdout: tables and other answers."""
    return Console(highlight=False, markup=False)


def prose_console() -> Console:
    """Stderr: everything that is not the answer."""
    return Console(stderr=True, highlight=False, markup=False)


def write(text: str) -> None:
    """Put data on stdout at once: generated text and JSON lines. Nobody wants them where it is closed."""
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()
