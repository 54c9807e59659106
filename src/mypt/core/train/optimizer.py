"""AdamW (Loshchilov and Hutter, 2019), with decay on matrices only."""

import torch
from torch import Tensor, nn

from mypt.records.run import TrainingConfig


class AdamW(torch.optim.AdamW):
    """AdamW whose fused kernel leaves weights and moments alone in a step where `found_inf` is 1.

    torch reads this attribute for its gradient scaler; it may be set without one, and nothing
    waits for the device.
    """

    found_inf: Tensor | None = None


def make_moments(optimizer: AdamW) -> None:
    """Make the memory that AdamW would make in its first step.

    There a shortage would come between the updates of two groups, and the step could not be done again.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in optimizer.state:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }


def build_optimizer(model: nn.Module, config: TrainingConfig) -> AdamW:
    """One group of matrices with weight decay, one of vectors (norms, biases) without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    return AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
