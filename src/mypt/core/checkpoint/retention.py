"""Which states stay: the newest two, the best, and milestones. Needs no torch."""

from collections.abc import Sequence

from mypt.core.checkpoint.state import State
from mypt.errors import MyptError
from mypt.records.checkpoint import TrainingState

KEPT_STATES = 2


def outlived(states: Sequence[State], keep_every: int | None) -> list[State]:
    """Those of `states` (newest first) that may go. What cannot be read now may be the best, and stays.

    Args:
        states: all states of a model.
        keep_every: a state whose step is a multiple of this stays for ever.
    """
    if not states or _training(states[0]) is None:
        return []
    best = best_of(states)
    return [
        state
        for state in states[KEPT_STATES:]
        if state != best and not (keep_every and state.step % keep_every == 0) and _training(state)
    ]


def best_of(states: Sequence[State]) -> State | None:
    """The state with the lowest validation loss, the first of equals; None when none was measured.

    The newest state (the first that can be read) knows which step it was, also where the evaluation
    came after that step was saved.
    """
    newest = next((training for state in states if (training := _training(state))), None)
    for state in states:
        if newest is not None and state.step == newest.best_step:
            return state
    losses = {state: loss for state in reversed(states) if (loss := measured_loss(state)) is not None}
    return min(losses, key=lambda state: losses[state], default=None)


def measured_loss(state: State) -> float | None:
    """The validation loss that was measured at this very state, if one was."""
    training = _training(state)
    return training.val_loss if training and training.val_step == state.step else None


def _training(state: State) -> TrainingState | None:
    try:
        return state.training()
    except MyptError:
        return None
