"""Which states stay: the newest two, the best, and milestones. Needs no torch."""

from collections.abc import Sequence
from contextlib import suppress

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
    """The state with the lowest validation loss; None when none was measured.

    The newest state knows which step it was: a state that was saved before its evaluation does not.
    """
    step = _best_step(states)
    named = next((state for state in states if state.step == step), None)
    if named is not None:
        return named
    losses = {state.path: loss for state in states if (loss := measured_loss(state)) is not None}
    return min((state for state in states if state.path in losses), key=lambda state: losses[state.path], default=None)


def _best_step(states: Sequence[State]) -> int | None:
    for state in states:
        with suppress(MyptError):
            return state.training().best_step
    return None


def measured_loss(state: State) -> float | None:
    """The validation loss that was measured at this very state, if one was."""
    try:
        training = state.training()
    except MyptError:
        return None
    return training.val_loss if training.val_step == state.step else None
