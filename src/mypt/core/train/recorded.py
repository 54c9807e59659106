"""Steps that are recorded: done as usual at first, and then launched as one.

A recording knows nothing but its memory: weights, moments, learning rates and the loss scale are changed in place.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from mypt.core.evaluate.loss import Tensors
from mypt.core.recording import USUAL_TIMES, Recording, record, recording_stream

_HINT = "Say --set training.record_steps=false: steps are slower, and their bits the same."

Work = Callable[[Tensors], torch.Tensor]
"""What is done with a batch. It waits for nothing, and batches of one run all have one shape."""


class _RecordedStep(NamedTuple):
    """The work, and where it reads its batch."""

    recording: Recording
    batch: Tensors


class Recorded:
    """Work on the device whose inputs are a batch, what is in memory, and torch's random numbers."""

    def __init__(self, device: torch.device) -> None:
        """Get ready, on a CUDA device."""
        self._device = device
        self.forget()

    def forget(self) -> None:
        """Give the memory of a recording back, and record anew after some usual steps."""
        self._step: _RecordedStep | None = None
        self._usual_steps = 0
        self._is_refused = False

    def do(self, work: Work, batch: Tensors, seed: int) -> torch.Tensor:
        """Do the work: in the usual way at first, then by the recording.

        Args:
            work: the same every time.
            batch: what to learn from.
            seed: of torch's random numbers.

        Returns:
            What the work gives; a recording overwrites it the next time.

        Raises:
            UsageError: when the device refuses to record.
        """
        with torch.cuda.device(self._device):
            if self._step is None and not self._is_refused and self._usual_steps >= USUAL_TIMES:
                self._record(work, batch)
            torch.manual_seed(seed)
            if self._step is None:
                self._usual_steps += 1
                # On the stream that records: gradients are formed where their tensors were first used.
                with recording_stream():
                    return work(batch)
            for place, part in zip(self._step.batch, batch, strict=True):
                if place is not None and part is not None:
                    place.copy_(part)
            self._step.recording.graph.replay()
            return self._step.recording.result

    def _record(self, work: Work, batch: Tensors) -> None:
        """Record the work. Where its memory does not fit beside what there is, go on as usual."""
        documents_BT = None if batch.documents_BT is None else batch.documents_BT.clone()
        places = Tensors(batch.inputs_BT.clone(), batch.targets_BT.clone(), documents_BT)
        recording = record(lambda: work(places), hint=_HINT)
        self._is_refused = recording is None
        self._step = None if recording is None else _RecordedStep(recording, places)
