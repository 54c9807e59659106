"""Logits -> the next ids. Pure: the same logits, settings and chances give the same ids.

    logits -> temperature -> top-k -> top-p -> min-p -> typical-p -> one draw

Each filter sees what the one before has left. Letters: B rows, V vocabulary, K candidates, N blocks, W their width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.records.sampling import SamplingConfig

_LOWEST_TEMPERATURE = 1e-30
"""Lower ones are the same in fp32: the likeliest ids alone."""
_FIRST_LOOK = 512
"""So many ids hold the asked probability nearly always; to sort all of a large vocabulary takes 30 times as long."""
_BLOCK_WIDTH = 256


class Candidates(NamedTuple):
    """The ids that may be drawn."""

    scores_BK: Tensor
    """Logarithms of their probabilities, up to a number that is the same for all; minus infinity: left out."""
    ids_BK: Tensor

    @property
    def probabilities(self) -> Tensor:
        """How likely each is to be drawn, shape (B, K)."""
        return self.scores_BK.softmax(dim=1)

    def only(self, kept_BK: Tensor) -> "Candidates":
        """Leave out the others."""
        return Candidates(self.scores_BK.masked_fill(~kept_BK, -torch.inf), self.ids_BK)

    def at(self, columns_BK: Tensor) -> "Candidates":
        """These columns, in this order."""
        return Candidates(self.scores_BK.gather(1, columns_BK), self.ids_BK.gather(1, columns_BK))


def choose(logits_BV: Tensor, config: SamplingConfig, chances: Sequence[float]) -> list[int]:
    """Choose the next id of each row.

    Args:
        logits_BV: scores of the ids that may be chosen, shape (B, V).
        config: temperature (0 is greedy) and filters.
        chances: a number of [0, 1) for each row, which decides; greedy needs none.
    """
    if config.temperature == 0:
        return logits_BV.argmax(dim=1).tolist()
    found = candidates(logits_BV, config)
    columns_B = _drawn(found.scores_BK, torch.tensor(chances, dtype=torch.float64))
    return found.ids_BK.gather(1, columns_B[:, None])[:, 0].tolist()


def candidates(logits_BV: Tensor, config: SamplingConfig) -> Candidates:
    """The distribution that is sampled at a temperature above zero: whose ids, and how likely each."""
    logits_BV = logits_BV.float().cpu()
    # With the peak at zero any temperature stays finite.
    peaks_B1 = logits_BV.amax(dim=1, keepdim=True)
    scores_BV = (logits_BV - peaks_B1) / max(config.temperature, _LOWEST_TEMPERATURE)
    found = Candidates(scores_BV, torch.arange(scores_BV.shape[1]).expand_as(scores_BV))
    if config.top_k is not None and config.top_k < scores_BV.shape[1]:
        found = _top_k(found, config.top_k)
    if config.top_p is not None and config.top_p < 1:
        found = _first_to_hold(found, -found.scores_BK, config.top_p)
    if config.min_p:
        found = found.only(found.scores_BK >= found.scores_BK.amax(dim=1, keepdim=True) + math.log(config.min_p))
    if config.typical_p is not None and config.typical_p < 1:
        found = _first_to_hold(found, _surprise(found), config.typical_p)
    return found


def _top_k(found: Candidates, k: int) -> Candidates:
    """The k likeliest (Fan et al., 2018)."""
    columns_BK = found.scores_BK.topk(k).indices
    return _up_to(found, -found.scores_BK, columns_BK, columns_BK[:, -1:])


def _surprise(found: Candidates) -> Tensor:
    """How far the information of each id is from what is expected (Meister et al., 2023)."""
    logs_BK = found.scores_BK.log_softmax(dim=1)
    entropy_B1 = -(logs_BK.exp() * logs_BK).nan_to_num(0.0).sum(dim=1, keepdim=True)
    return (-logs_BK - entropy_B1).abs()


def _first_to_hold(found: Candidates, order_BK: Tensor, probability: float) -> Candidates:
    """The first ids, lowest order first, until they hold a probability; the one that reaches it is kept.

    By likelihood this is nucleus sampling (Holtzman et al., 2020).
    """
    all_BK, count = found.probabilities, order_BK.shape[1]
    columns_BK = order_BK.topk(min(_FIRST_LOOK, count), largest=False).indices
    held_BK = all_BK.gather(1, columns_BK).cumsum(dim=1, dtype=torch.float64)
    if columns_BK.shape[1] < count and bool((held_BK[:, -1] < probability).any()):
        columns_BK = order_BK.argsort(dim=1)
        held_BK = all_BK.gather(1, columns_BK).cumsum(dim=1, dtype=torch.float64)
    before_BK = held_BK - all_BK.gather(1, columns_BK)
    reaches_B1 = (before_BK < probability).sum(dim=1, keepdim=True) - 1
    return _up_to(found, order_BK, columns_BK, columns_BK.gather(1, reaches_B1))


def _up_to(found: Candidates, order_BK: Tensor, columns_BK: Tensor, last_B1: Tensor) -> Candidates:
    """Those up to the last one that is kept, and those equal to it, in the order of their ids.

    So no row shows, in what is kept or drawn, how the equal ones of another were sorted.

    Args:
        found: from which to keep.
        order_BK: what is kept, lowest first.
        columns_BK: some columns of each row, the lowest ones.
        last_B1: the column of the last one, among them.
    """
    kept_BK = order_BK <= order_BK.gather(1, last_B1)
    count = columns_BK.shape[1]
    if count == kept_BK.shape[1] or bool((kept_BK.sum(dim=1) > count).any()):
        return found.only(kept_BK)
    columns_BK = columns_BK.sort(dim=1).values
    return found.at(columns_BK).only(kept_BK.gather(1, columns_BK))


def _drawn(scores_BK: Tensor, chances_B: Tensor) -> Tensor:
    """The column of each row in which the summed probability passes the row's chance: first the block, then the place.

    Summed in double precision: of the many ids of a large vocabulary each has its share.
    """
    weights_BK = (scores_BK - scores_BK.amax(dim=1, keepdim=True)).exp()
    width = min(_BLOCK_WIDTH, weights_BK.shape[1])
    blocks_BNW = F.pad(weights_BK, (0, -weights_BK.shape[1] % width)).unflatten(1, (-1, width))
    block_B, rest_B = _passed(blocks_BNW.sum(dim=2, dtype=torch.float64), chances_B, is_share=True)
    inside_BW = blocks_BNW[torch.arange(len(block_B)), block_B].double()
    place_B, _ = _passed(inside_BW, rest_B, is_share=False)
    return block_B * width + place_B


def _passed(weights_BN: Tensor, marks_B: Tensor, *, is_share: bool) -> tuple[Tensor, Tensor]:
    """The first column whose running sum is above the mark, and how far into the column that mark is.

    A column without weight is never it, whatever is rounded.
    """
    sums_BN = weights_BN.cumsum(dim=1)
    ends_B = sums_BN[:, -1]
    marks_B = marks_B * ends_B if is_share else marks_B
    below_B1 = torch.minimum(marks_B, torch.nextafter(ends_B, torch.zeros_like(ends_B)))[:, None]
    columns_B1 = torch.searchsorted(sums_BN, below_B1, right=True)
    begins_B1 = sums_BN.gather(1, columns_B1) - weights_BN.gather(1, columns_B1)
    return columns_B1[:, 0], (below_B1 - begins_B1).clamp(min=0)[:, 0]
