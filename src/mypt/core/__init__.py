"""Living floor, the engine: does the work, yields events, never prints, never exits."""

import os
import time
from contextlib import suppress
from pathlib import Path

_LOOKS, _LOOK_S = 3, 0.001


def is_quiet(told: Path = Path("/proc/loadavg")) -> bool:
    """Whether no other program computes at this moment, as far as Linux tells."""
    with suppress(OSError, ValueError, IndexError):
        for _ in range(_LOOKS):
            running = int(told.read_text(encoding="ascii").split()[3].split("/")[0])
            if running <= 1:  # ourselves
                return True
            time.sleep(_LOOK_S)
    return False


WAITING = {"GOMP_SPINCOUNT": "10000" if is_quiet() else "3000", "KMP_BLOCKTIME": "1"}
"""How torch's threads wait for each other after every operation: they spin for a moment, then sleep.

The longer they spin, the faster are small steps on an idle machine, and the slower beside another program: from 3,000
turns to 10,000 a fifth faster, and 1.7 times as slow beside a busy one. So the machine is looked at first. GNU's
library reads the first, in turns of its loop; Intel's and LLVM's the second, in milliseconds.
"""
CHOSE_WAITING = not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys()
"""Whether that is our own choice, and not what the environment says."""
if CHOSE_WAITING:
    os.environ |= WAITING  # before torch wakes


def wait_awake() -> None:
    """Spin longer still from now on: for generation, where waits are many and short. Before torch wakes."""
    if CHOSE_WAITING:
        os.environ["GOMP_SPINCOUNT"] = "30000"
