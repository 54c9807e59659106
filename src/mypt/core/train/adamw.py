"""AdamW (Loshchilov and Hutter, 2019)."""

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    """AdamW whose fused kernel leaves weights and moments alone in a step where `found_inf` is 1.

    torch reads this attribute for its gradient scaler; it may be set without one, and nothing
    waits for the device.
    """

    found_inf: Tensor | None = None

    def make_moments(self) -> None:
        """Make the memory that the first step would make.

        There a shortage would come between the updates of two groups, and the step could not be done again.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter not in self.state:
                    self.state[parameter] = {
                        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                        "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    }
