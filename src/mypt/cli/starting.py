"""The start of a command that loads torch."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def keeping_all() -> Generator[None]:
    """Look for no garbage meanwhile, nor later among what was made.

    To load torch makes half a million objects that stay. Looking among them time and again takes a quarter of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
