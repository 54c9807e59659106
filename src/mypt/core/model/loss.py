"""The output head and its loss together, some rows at a time: the logits are never whole in memory.

    hidden states -> logits of a few rows -> their losses, and at once the gradients

Logits are the largest tensor of a small model: batch x context x vocabulary. A chunk of them is overwritten by its own
gradient, turned into the gradients of hidden states and weights, and forgotten.

Letters: N rows (batch x time), C width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.records.budget import rows_at_once


@torch.no_grad()
def token_losses(hidden_NC: Tensor, weight_VC: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """Cross-entropy in nats of every row, 0 where the target is negative; shape (N,), in fp32. Without gradients."""

    def losses_of(rows: slice) -> Tensor:
        scores_RV = F.linear(hidden_NC[rows], weight_VC, bias_V).to(_wide(hidden_NC))
        targets_R = targets_N[rows]
        losses_R = F.cross_entropy(scores_RV, targets_R.clamp(min=0), reduction="none")
        return losses_R.where(targets_R >= 0, 0)

    return torch.cat([losses_of(rows) for rows in _chunks(len(hidden_NC), len(weight_VC))])


def mean_loss(
    hidden_NC: Tensor, weight_VC: Tensor, bias_V: Tensor | None, targets_N: Tensor, predicted: Tensor
) -> Tensor:
    """Sum of the cross-entropies over the targets that are not negative, divided by `predicted`; a scalar in fp32.

    Args:
        hidden_NC: what the head reads.
        weight_VC: the head.
        bias_V: its bias, if it has one.
        targets_N: the next tokens; negative where there is nothing to be predicted.
        predicted: how many are to be predicted in the whole batch, of which these rows may be a part.
    """
    return _MeanLoss.apply(hidden_NC, weight_VC, bias_V, targets_N, predicted)


class _MeanLoss(torch.autograd.Function):
    """Forms the gradients in the forward pass, while a chunk's logits are there."""

    @staticmethod
    def forward(  # pyrefly: ignore [bad-override] - torch takes any signature
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        predicted: Tensor,
    ) -> Tensor:
        """Give the loss, and keep its gradients."""
        wide = _wide(hidden_NC)
        total = torch.zeros((), dtype=wide, device=hidden_NC.device)
        hidden_gradient_NC = torch.empty_like(hidden_NC)
        # Added up in fp32 whatever the weights are: bf16 would lose the small parts.
        weight_gradient_VC = torch.zeros_like(weight_VC, dtype=wide)
        bias_gradient_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=wide)

        def learn(rows: slice) -> None:
            logits_RV = F.linear(hidden_NC[rows], weight_VC, bias_V)
            losses_R, gradient_RV = _losses_and_gradient(logits_RV, targets_N[rows], predicted)
            total.add_(losses_R.sum())
            torch.mm(gradient_RV, weight_VC, out=hidden_gradient_NC[rows])
            _add_product(weight_gradient_VC, gradient_RV.T, hidden_NC[rows])
            if bias_gradient_V is not None:
                bias_gradient_V.add_(gradient_RV.sum(0, dtype=wide))

        for rows in _chunks(len(hidden_NC), len(weight_VC)):
            learn(rows)  # a function, so that its tensors are gone before the next
        ctx.save_for_backward(hidden_gradient_NC, weight_gradient_VC, bias_gradient_V)
        return total / predicted

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Scale what the forward pass kept."""
        return *(None if part is None else part * gradient for part in ctx.saved_tensors), None, None


def _losses_and_gradient(logits_RV: Tensor, targets_R: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of some rows, and the gradient of their sum / predicted: softmax minus one-hot. Overwrites the logits."""
    scores_RV = logits_RV.to(_wide(logits_RV))
    is_target = (targets_R >= 0)[:, None]
    target_R1 = targets_R.clamp(min=0)[:, None]
    target_score_R1 = scores_RV.gather(1, target_R1)
    largest_R1 = scores_RV.amax(1, keepdim=True)
    scores_RV.sub_(largest_R1).exp_()
    sums_R1 = scores_RV.sum(1, keepdim=True)
    losses_R1 = torch.where(is_target, largest_R1 + sums_R1.log() - target_score_R1, 0)
    weight_R1 = is_target.to(scores_RV.dtype) / predicted
    scores_RV.mul_(weight_R1 / sums_R1)
    scores_RV.scatter_(1, target_R1, scores_RV.gather(1, target_R1) - weight_R1)
    return losses_R1[:, 0], scores_RV.to(logits_RV.dtype)


def _add_product(sum_VC: Tensor, left_VR: Tensor, right_RC: Tensor) -> None:
    """Add a matrix product to a sum that may be of a wider type."""
    if sum_VC.dtype == left_VR.dtype:
        sum_VC.addmm_(left_VR, right_RC)
    else:
        sum_VC += left_VR @ right_RC


def _chunks(rows: int, vocab_size: int) -> Iterator[slice]:
    size = rows_at_once(vocab_size)
    return (slice(first, first + size) for first in range(0, rows, size))


def _wide(tensor: Tensor) -> torch.dtype:
    """The type that sums are formed in."""
    return torch.promote_types(tensor.dtype, torch.float32)
