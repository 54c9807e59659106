"""AdamW by our own kernels: one pass over all parameters of a group."""

from collections.abc import Sequence

import torch

from mypt.core.model.kernels.calls import Calls
from mypt.core.train.adamw import EPS, AdamW, Group


class KernelAdamW(AdamW):
    """The same updates in other bits."""

    def __init__(self, groups: Sequence[Group], calls: Calls, *, beta1: float, beta2: float) -> None:
        """Take over parameters, on a CPU."""
        super().__init__(groups, beta1=beta1, beta2=beta2)
        self._calls = calls

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self.make_moments()
        if self.found_inf is not None and self.found_inf.item():
            return
        beta1, beta2 = self._betas
        for group in self.groups:
            moved = [parameter for parameter in group.parameters if parameter.grad is not None]
            if not moved:
                continue
            assert isinstance(group.lr, float), "on a CPU"
            kept = [self.state[parameter] for parameter in moved]
            torch._foreach_add_([each["step"] for each in kept], 1)
            steps = [each["step"].item() for each in kept]
            self._calls.adamw(
                moved,
                [parameter.grad for parameter in moved if parameter.grad is not None],
                [each["exp_avg"] for each in kept],
                [each["exp_avg_sq"] for each in kept],
                rates=[group.lr / (1 - beta1**step) for step in steps],
                corrections=[1 / (1 - beta2**step) for step in steps],
                shrink=1 - group.lr * group.weight_decay,
                mean_share=1 - beta1,
                square_share=1 - beta2,
                eps=EPS,
            )
