"""Steps that are left out: which text was in them, and when there are too many.

The update of such a step is not applied, so the run stands where it stood before the step. Going back
to the last saved state and leaving the step's batch out would end in the same bits, only later.
"""

from contextlib import suppress

from mypt.core.data.batches import Place
from mypt.core.tokens.base import decode
from mypt.core.train.session import Session, Vitals
from mypt.errors import DataError, DivergedError
from mypt.events import Skipped

_TOLD_TEXTS = 64
_TOLD_TOKENS = 24


def skipped(vitals: Vitals, session: Session) -> Skipped:
    """Describe a step that was left out, with the place and the beginning of each of its texts."""
    places: list[Place] = []  # where the text is gone by now, the numbers of the samples still say which it was
    with suppress(DataError):
        places = session.batches.places(vitals.first_sample, min(vitals.samples, _TOLD_TEXTS))
    return Skipped(
        step=vitals.step,
        problem=f"the loss is {vitals.loss} and the gradient's norm {vitals.gradient_norm}",
        samples=(vitals.first_sample, vitals.first_sample + vitals.samples - 1),
        texts=tuple(_described(place, session) for place in places),
    )


def too_many_skips(newest: Skipped, session: Session) -> DivergedError:
    """The error for a run that does not find back to numbers; `newest` is the last step left out."""
    steps = ", ".join(f"{step:,}" for step in session.progress.skipped_steps)
    allowed = session.config.training.max_skips
    first, last = newest.samples
    return DivergedError(
        f"step {newest.step:,} with samples {first:,} to {last:,}: {newest.problem}; nothing of it was saved. "
        f"Left out for that so far: steps {steps}; allowed are {allowed}",
        hint="Lower --learning-rate, or allow more with --set training.max_skips=N, and go on from the last "
        "checkpoint; or begin anew with --fresh. metrics.jsonl names the texts.",
    )


def _described(place: Place, session: Session) -> str:
    beginning = decode(session.corpus.tokenizer, place.ids[:_TOLD_TOKENS].tolist())
    return f"{place.name}, token {place.offset:,}: {beginning!r}"
