"""Loss scaling: fp16 ends at 6e-8, and many gradients are smaller (Micikevicius et al., 2018).

    loss -> gradients x scale (fp16) -> gradients of the masters x scale (fp32) -> divided by it -> clipping, update

A scale too large shows at once: a gradient is no number. Then the step is left out and the scale halves; after many
steps without that it doubles. All of it stays on the device: nothing waits to find out.
"""

import torch
from torch import Tensor

from mypt.records.checkpoint import LossScaleState

GROWS_AFTER_STEPS = 2000
LARGEST = 2.0**24
"""Where all gradients are zero nothing else would end its growth."""


class LossScale:
    """A power of two, so that scaling rounds nothing, and how many steps in a row it has held."""

    def __init__(self, state: LossScaleState, device: torch.device) -> None:
        """Go on where a run stood."""
        self.factor = torch.tensor(state.factor, dtype=torch.float32, device=device)
        self._held_steps = torch.tensor(state.held_steps, dtype=torch.int64, device=device)

    def undo(self, gradients: list[Tensor]) -> None:
        """Divide summed gradients by the scale, in place."""
        torch._foreach_mul_(gradients, self.factor.reciprocal())

    def step(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Learn from one step. A loss that is no number says nothing about the scale, and changes nothing.

        Args:
            loss: unscaled.
            gradient_norm: of the unscaled gradients; not finite where one of them is not.
        """
        is_number = loss.isfinite()
        fits = is_number & gradient_norm.isfinite()
        overflows = is_number & ~fits & (self.factor > 1)
        held_steps = torch.where(overflows, 0, self._held_steps + fits)
        grows = held_steps >= GROWS_AFTER_STEPS
        grown = torch.where(grows, (self.factor * 2).clamp(max=LARGEST), self.factor)
        # In place: a recorded step (recorded.py) knows no other tensors.
        self.factor.copy_(torch.where(overflows, self.factor / 2, grown))
        self._held_steps.copy_(torch.where(grows, 0, held_steps))

    def state(self) -> LossScaleState:
        """What a run that goes on needs. Waits for the device."""
        return LossScaleState(factor=self.factor.item(), held_steps=int(self._held_steps.item()))
