"""Which states stay: the newest two, the best, and milestones. Needs no torch."""

import math
from collections.abc import Sequence

from mypt.core.checkpoint.state import State
from mypt.errors import MyptError

KEPT_STATES = 2


def outlived(states: Sequence[State], keep_every: int | None) -> list[State]:
    """Those of `states` (newest first) that may go.

    Args:
        states: all states of a model.
        keep_every: a state whose step is a multiple of this stays for ever.
    """
    best = best_of(states)
    return [
        state for state in states[KEPT_STATES:] if state != best and not (keep_every and state.step % keep_every == 0)
    ]


def best_of(states: Sequence[State]) -> State | None:
    """The state with the lowest validation loss, the newest of equals; None when none was measured."""
    losses = {state.path: _val_loss(state) for state in states}
    best = min(states, key=lambda state: losses[state.path], default=None)
    return best if best is not None and losses[best.path] < math.inf else None


def _val_loss(state: State) -> float:
    """The loss that was measured at this very state; infinite where there is none."""
    try:
        training = state.training()
    except MyptError:
        return math.inf
    return training.val_loss if training.val_loss is not None and training.val_step == state.step else math.inf
