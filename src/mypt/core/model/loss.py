"""The output head and its loss together, some rows at a time: the logits are never whole in memory.

    hidden states -> logits of some rows -> their losses, and at once the gradients

Logits are the largest tensor of a small model: batch x context x vocabulary. Those of some rows are overwritten by
their own gradients, turned into the gradients of hidden states and weights, and forgotten.

Letters: N rows (batch x time), R rows at once, C width, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mypt.records.memory import rows_at_once

Head = Callable[[Tensor], Tensor]
"""The output head: hidden states -> logits of their own memory."""
ToGradient = Callable[[Tensor, Tensor, Tensor], Tensor]
"""As `logits_to_gradient`: logits of some rows, their targets, and what to divide by; gives their losses."""


class HeadGradients(NamedTuple):
    """A sum of losses, in fp32, and the gradients of it divided by something."""

    total: Tensor
    hidden_NC: Tensor
    weight_VC: Tensor
    """In fp32, whatever the weights are."""
    bias_V: Tensor | None


HeadLoss = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor], HeadGradients]
"""As `head_loss`: hidden states, weight, bias, targets, and what to divide by."""

_SCORES_AT_ONCE = 2**22
"""Of these many numbers the passes over them find most in the processor's cache."""


class TokenScores(NamedTuple):
    """How each row's target was predicted."""

    losses_N: Tensor
    """Cross-entropy in nats, in fp32; 0 where the target is negative."""
    hits_N: Tensor
    """Whether the target has the largest logit, and of equal ones the first; False where it is negative."""


@torch.no_grad()
def token_scores(hidden_NC: Tensor, head: Head, vocab_size: int, targets_N: Tensor) -> TokenScores:
    """Score the targets of all rows, without gradients."""
    # Few at once on any device: there are no large products to be formed of them.
    size = rows_at_once(len(hidden_NC), vocab_size, hidden_NC.itemsize, on_gpu=False)
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    for some_RC, some_R in zip(hidden_NC.split(size), targets_N.split(size), strict=True):
        for rows, part_RV in _scored([(slice(0, len(some_R)), head(some_RC))]):
            hits.append(part_RV.argmax(1) == some_R[rows])
            losses.append(_exponentials(part_RV, some_R[rows])[0])  # overwrites the logits
    return TokenScores(torch.cat(losses), torch.cat(hits))


def mean_loss(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    predicted: Tensor,
    scale: Tensor | None = None,
    loss_of: HeadLoss | None = None,
) -> Tensor:
    """Sum of the cross-entropies over the targets that are not negative, divided by `predicted`; a scalar in fp32.

    Args:
        hidden_NC: what the head reads.
        weight_VC: the head; of a wider type than the hidden states, it is rounded, and its gradient is not.
        bias_V: its bias, if it has one.
        targets_N: the next tokens; negative where there is nothing to be predicted.
        predicted: how many are to be predicted in the whole batch, of which these rows may be a part.
        scale: the gradients, and not the loss, are so many times as large, from where they are first rounded on.
        loss_of: `head_loss`, or other code of it.
    """
    divisor = predicted if scale is None else predicted / scale
    return _MeanLoss.apply(hidden_NC, weight_VC, bias_V, targets_N, predicted, divisor, loss_of or head_loss)


class _MeanLoss(torch.autograd.Function):
    """Forms the gradients in the forward pass, while the logits are there."""

    @staticmethod
    def forward(  # pyrefly: ignore [bad-override] - torch takes any signature
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        predicted: Tensor,
        divisor: Tensor,
        loss_of: HeadLoss,
    ) -> Tensor:
        """Give the loss, and keep its gradients."""
        total, *ctx.gradients = loss_of(hidden_NC, weight_VC.to(hidden_NC.dtype), bias_V, targets_N, divisor)
        return total / predicted

    @staticmethod
    @once_differentiable
    # pyrefly: ignore [bad-override] - torch takes any signature
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        """Scale what the forward pass kept; once, since it is scaled in place."""
        gradients, ctx.gradients = ctx.gradients, None
        return *(None if part is None else part.mul_(gradient) for part in gradients), None, None, None, None


def head_loss(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    divisor: Tensor,
    to_gradient: ToGradient | None = None,
) -> HeadGradients:
    """The sum of all losses, and the gradients of it divided by `divisor`.

    Args:
        hidden_NC: what the head reads.
        weight_VC: the head, of the same type.
        bias_V: its bias, if it has one.
        targets_N: the next tokens; negative where there is nothing to be predicted.
        divisor: a number.
        to_gradient: `logits_to_gradient`, or compiled code of it.
    """
    wide, to_gradient = _wide(hidden_NC), to_gradient or logits_to_gradient
    total = torch.zeros((), dtype=wide, device=hidden_NC.device)
    hidden_gradient_NC = torch.empty_like(hidden_NC)
    # Added up in fp32 whatever the weights are: bf16 would lose the small parts.
    weight_gradient_VC = torch.zeros_like(weight_VC, dtype=wide)
    bias_gradient_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=wide)
    for rows, logits_RV in _logits(hidden_NC, weight_VC, bias_V):
        for part, part_RV in _scored([(rows, logits_RV)]):
            total += to_gradient(part_RV, targets_N[part], divisor).sum()
        gradient_RV = logits_RV
        torch.mm(gradient_RV, weight_VC, out=hidden_gradient_NC[rows])
        _add_product(weight_gradient_VC, gradient_RV.T, hidden_NC[rows])
        if bias_gradient_V is not None:
            bias_gradient_V += gradient_RV.sum(0, dtype=wide)
    return HeadGradients(total, hidden_gradient_NC, weight_gradient_VC, bias_gradient_V)


Logits = tuple[slice, Tensor]
"""Some rows, and their logits, which whoever takes them may overwrite."""


def _logits(hidden_NC: Tensor, weight_VC: Tensor, bias_V: Tensor | None) -> Iterator[Logits]:
    """Logits of all rows, as many at a time as are to be in memory. Each time they lie in the same place."""
    size = rows_at_once(len(hidden_NC), len(weight_VC), weight_VC.itemsize, on_gpu=weight_VC.is_cuda)
    room_RV = hidden_NC.new_empty(size, len(weight_VC))
    for first in range(0, len(hidden_NC), size):
        rows = slice(first, min(first + size, len(hidden_NC)))
        logits_RV = torch.mm(hidden_NC[rows], weight_VC.T, out=room_RV[: rows.stop - first])
        if bias_V is not None:
            logits_RV += bias_V
        yield rows, logits_RV


def _scored(logits: Iterable[Logits]) -> Iterator[Logits]:
    """The same logits, so few rows at a time that they stay in the processor's cache; a GPU takes all at once."""
    for rows, logits_RV in logits:
        size = len(logits_RV) if logits_RV.is_cuda else max(1, _SCORES_AT_ONCE // logits_RV.shape[1])
        for first, part_RV in enumerate(logits_RV.split(size)):
            start = rows.start + first * size
            yield slice(start, start + len(part_RV)), part_RV


def _exponentials(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, shape (R,); the softmax before it is divided by its sums; and these sums, shape (R, 1).

    Overwrites logits in fp32.
    """
    scores_RV = logits_RV.to(_wide(logits_RV))
    target_score_R = scores_RV.gather(1, targets_R.clamp(min=0)[:, None])[:, 0]
    largest_R1 = scores_RV.amax(1, keepdim=True)
    scores_RV.sub_(largest_R1).exp_()
    sums_R1 = scores_RV.sum(1, keepdim=True)
    losses_R = (largest_R1 + sums_R1.log())[:, 0] - target_score_R
    return losses_R.where(targets_R >= 0, 0), scores_RV, sums_R1


def logits_to_gradient(logits_RV: Tensor, targets_R: Tensor, divisor: Tensor) -> Tensor:
    """Losses of some rows. The gradient of their sum / divisor, softmax minus one-hot, takes the logits' place."""
    losses_R, scores_RV, sums_R1 = _exponentials(logits_RV, targets_R)
    weight_R1 = (targets_R >= 0).to(scores_RV.dtype)[:, None] / divisor
    scores_RV.mul_(weight_R1 / sums_R1)
    if torch.compiler.is_compiling():
        # One pass with the rest, where to change single places would be another.
        is_target_RV = torch.arange(scores_RV.shape[1], device=targets_R.device) == targets_R[:, None]
        scores_RV = scores_RV - torch.where(is_target_RV, weight_R1, 0)
    else:
        target_R1 = targets_R.clamp(min=0)[:, None]
        scores_RV.scatter_(1, target_R1, scores_RV.gather(1, target_R1) - weight_R1)
    if scores_RV is not logits_RV:
        logits_RV.copy_(scores_RV)
    return losses_R


def _add_product(sum_VC: Tensor, left_VR: Tensor, right_RC: Tensor) -> None:
    """Add a matrix product to a sum that may be of a wider type."""
    if sum_VC.dtype == left_VR.dtype:
        sum_VC.addmm_(left_VR, right_RC)
    elif sum_VC.is_cuda and torch.version.cuda:
        torch.addmm(sum_VC, left_VR, right_RC, out_dtype=sum_VC.dtype, out=sum_VC)
    else:
        sum_VC += left_VR @ right_RC


def _wide(tensor: Tensor) -> torch.dtype:
    """The type that sums are formed in."""
    return torch.promote_types(tensor.dtype, torch.float32)
