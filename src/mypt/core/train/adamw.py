"""AdamW (Loshchilov and Hutter, 2019), by torch's fused kernel.

It is no `torch.optim.Optimizer`: that class loads torch's compiler, which takes about as long as torch itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_EPS = 1e-8


@dataclass(slots=True)
class Group:
    """Parameters that learn at one rate."""

    parameters: Sequence[Tensor]
    peak_lr: float
    weight_decay: float = 0.0
    lr: float | Tensor = field(init=False)
    """Of the next step; a tensor on the device where steps are recorded, which would repeat a number."""

    def __post_init__(self) -> None:
        """Begin at the peak."""
        self.lr = self.peak_lr


class AdamW:
    """Its kernel leaves weights and moments alone in a step where `found_inf` is 1; nothing waits for the device."""

    def __init__(self, groups: Sequence[Group], *, beta1: float, beta2: float) -> None:
        """Take over parameters; their memory is made by the first step, or before it by `make_moments`."""
        self.groups = list(groups)
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        """What is kept of each parameter from step to step."""
        self.found_inf: Tensor | None = None
        self._betas = beta1, beta2

    def make_moments(self) -> None:
        """Make the memory that the first step would make.

        There a shortage would come between the updates of two groups, and the step could not be done again.
        """
        for group in self.groups:
            for parameter in group.parameters:
                if parameter not in self.state:
                    self.state[parameter] = {
                        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                        "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    }

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self.make_moments()
        # Metal's kernel does not read it: there we wait for the device.
        if self.found_inf is not None and self.found_inf.device.type == "mps" and self.found_inf.item():
            return
        beta1, beta2 = self._betas
        for group in self.groups:
            moved = [(parameter, parameter.grad) for parameter in group.parameters if parameter.grad is not None]
            if not moved:
                continue
            parameters, gradients = zip(*moved, strict=True)
            kept = [self.state[parameter] for parameter in parameters]
            steps = [each["step"] for each in kept]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                list(parameters),
                list(gradients),
                [each["exp_avg"] for each in kept],
                [each["exp_avg_sq"] for each in kept],
                [],
                steps,
                lr=group.lr,
                beta1=beta1,
                beta2=beta2,
                weight_decay=group.weight_decay,
                eps=_EPS,
                amsgrad=False,
                maximize=False,
                found_inf=self.found_inf,
            )
            if self.found_inf is not None:
                torch._foreach_sub_(steps, [self.found_inf] * len(steps))
