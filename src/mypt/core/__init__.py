"""Living floor, the engine: does the work, yields events, never prints, never exits."""

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
"""How torch's threads wait for each other after every operation: they spin for some microseconds, then sleep.

Sleeping at once makes small steps take 1.7 times as long on an idle machine, spinning for long 7 times beside one busy
program. GNU's library reads the second, and others only the first.
"""
CHOSE_WAITING = not WAITING.keys() & os.environ.keys()
"""Whether that is our own choice, and not what the environment says."""
if CHOSE_WAITING:
    os.environ |= WAITING  # before torch wakes
