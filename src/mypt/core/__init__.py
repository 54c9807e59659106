"""Living floor, the engine: does the work, yields events, never prints, never exits."""

import os

WAITING = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}
"""How torch's threads wait for each other after every operation: they spin for a moment, then sleep.

Sleeping at once makes small steps take up to 1.7 times as long on an idle machine, spinning for long 7 times beside one
busy program. GNU's library reads the first, in turns of its loop; Intel's and LLVM's the second, in milliseconds.
"""
CHOSE_WAITING = not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys()
"""Whether that is our own choice, and not what the environment says."""
if CHOSE_WAITING:
    os.environ |= WAITING  # before torch wakes


def wait_awake() -> None:
    """Spin ten times as long from now on: for generation, where waits are many and short. Before torch wakes."""
    if CHOSE_WAITING:
        os.environ["GOMP_SPINCOUNT"] = "30000"
