"""Logits -> the next ids. Pure: the same logits, settings and chances give the same ids.

    logits -> top-k -> temperature -> top-p -> min-p -> typical-p -> one draw

Each filter sees what the one before has left. In numpy, which is several times as fast here as torch.
Letters: B rows, V vocabulary, K candidates, N blocks, W their width.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mypt.records.sampling import SamplingConfig

Numbers = NDArray[np.float32]
Ids = NDArray[np.int64]
Finder = Callable[[Numbers, int], Sequence[Ids]]
"""Finds the ids of so many highest scores in each row, in order, and those as high as the last; until called anew."""

_LOWEST_TEMPERATURE = 1e-30
"""Lower ones are the same in fp32: the likeliest ids alone."""
_LOOKS = (512, 8192)
"""So many ids hold the asked probability nearly always; to sort all of a large vocabulary takes ten times as long."""
_BLOCK_WIDTH = 256
_LARGEST_GROUP, _GROUPS_PER_ID = 64, 4
"""Of what top-k looks at: with fewer groups too many ids pass their mark, with more there is more to sort."""


class Candidates(NamedTuple):
    """The ids that may be drawn next."""

    scores_K: Numbers
    """Logarithms of their probabilities, up to a number that is the same for all; minus infinity: left out."""
    ids_K: Ids | None = None
    """None: all ids, in order."""

    @property
    def weights(self) -> Numbers:
        """Their probabilities, but for a factor: the likeliest has 1. Shape (K,)."""
        return np.exp(self.scores_K - self.scores_K.max())

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """How likely each is to be drawn, shape (K,)."""
        weights_K = self.weights.astype(np.float64)
        return weights_K / weights_K.sum()

    def only(self, kept_K: NDArray[np.bool_]) -> "Candidates":
        """Without the others."""
        columns_K = np.flatnonzero(kept_K)
        return Candidates(self.scores_K[columns_K], columns_K if self.ids_K is None else self.ids_K[columns_K])


def likeliest(logits_BV: Numbers, count: int) -> list[Ids]:
    """The ids of so many highest scores of each row, in order, and those as high as the last (Fan et al., 2018)."""
    return [_likeliest(row_V, count) for row_V in logits_BV]


def _likeliest(logits_V: Numbers, count: int) -> Ids:
    # The vocabulary is dealt into groups. As many of the groups' best scores as are asked for are not below one mark,
    # so what is below it cannot be among the likeliest: of a large vocabulary that leaves few ids to look at.
    ids_K = None
    size = min(_LARGEST_GROUP, len(logits_V) // (_GROUPS_PER_ID * count))
    if size > 1:
        groups = len(logits_V) // size
        best_N = logits_V[: size * groups].reshape(size, groups).max(axis=0)
        ids_K = np.flatnonzero(logits_V >= np.partition(best_N, -count)[-count])
    scores_K = logits_V if ids_K is None else logits_V[ids_K]
    kept_K = np.flatnonzero(scores_K >= np.partition(scores_K, -count)[-count])
    return kept_K if ids_K is None else ids_K[kept_K]


def choose(logits_BV: Numbers, config: SamplingConfig, chances: Sequence[float], find: Finder = likeliest) -> list[int]:
    """Choose the next id of each row.

    Args:
        logits_BV: scores of the ids that may be chosen, shape (B, V).
        config: temperature (0 is greedy) and filters.
        chances: a number of [0, 1) for each row, which decides; greedy needs none.
        find: what finds the likeliest ids.
    """
    if config.temperature == 0:
        return logits_BV.argmax(axis=1).tolist()
    return [_drawn(row, chance) for row, chance in zip(candidates(logits_BV, config, find), chances, strict=True)]


def candidates(logits_BV: Numbers, config: SamplingConfig, find: Finder = likeliest) -> list[Candidates]:
    """The distribution of each row that is sampled at a temperature above zero: whose ids, in order, and how likely."""
    rows = [Candidates(row_V) for row_V in logits_BV]
    if config.top_k is not None and config.top_k < logits_BV.shape[1]:
        ids_of_rows = find(logits_BV, config.top_k)
        rows = [Candidates(row_V[ids_K], ids_K) for row_V, ids_K in zip(logits_BV, ids_of_rows, strict=True)]
    return [_filtered(row, config) for row in rows]


def _filtered(found: Candidates, config: SamplingConfig) -> Candidates:
    """What the temperature and the filters after it leave."""
    scores_K = found.scores_K - found.scores_K.max()
    with np.errstate(over="ignore"):  # far below the peak all is minus infinity
        scores_K /= np.float32(max(config.temperature, _LOWEST_TEMPERATURE))
    found = Candidates(scores_K, found.ids_K)
    if config.top_p is not None and config.top_p < 1:
        found = _first_to_hold(found, -found.scores_K, config.top_p)
    if config.min_p:
        found = found.only(found.scores_K >= found.scores_K.max() + math.log(config.min_p))
    if config.typical_p is not None and config.typical_p < 1:
        found = _first_to_hold(found, _surprise(found), config.typical_p)
    return found


def _surprise(found: Candidates) -> NDArray[np.float64]:
    """How far the information of each id is from what is expected (Meister et al., 2023)."""
    probabilities_K = found.probabilities
    with np.errstate(divide="ignore", invalid="ignore"):
        information_K = -np.log(probabilities_K)
        entropy = np.nansum(probabilities_K * information_K)
    return np.abs(information_K - entropy)


def _first_to_hold(found: Candidates, order_K: NDArray[np.floating], probability: float) -> Candidates:
    """The first ids, lowest order first, until they hold a probability; the last one is kept, with all equal to it.

    By likelihood this is nucleus sampling (Holtzman et al., 2020).
    """
    all_K, count = found.probabilities, len(order_K)
    columns_K = np.arange(count)
    for look in (look for look in _LOOKS if look < count):
        least_K = np.argpartition(order_K, look)[:look]
        if all_K[least_K].sum() >= probability:
            columns_K = least_K
            break
    columns_K = columns_K[order_K[columns_K].argsort(kind="stable")]
    each_K = all_K[columns_K]
    last = columns_K[(each_K.cumsum() - each_K < probability).sum() - 1]
    return found.only(order_K <= order_K[last])


def _drawn(found: Candidates, chance: float) -> int:
    """The id with which the summed weight passes the chance's share of all: first its block, then its place there.

    Summed in double precision: of the many ids of a large vocabulary each has its share.
    """
    weights_K, start = found.weights, 0
    if len(weights_K) > _BLOCK_WIDTH:
        starts_N = np.arange(0, len(weights_K), _BLOCK_WIDTH)
        blocks_N = np.add.reduceat(weights_K, starts_N, dtype=np.float64)
        block, chance = _passed(blocks_N, chance)
        start = block * _BLOCK_WIDTH
        weights_K = weights_K[start : start + _BLOCK_WIDTH]
    column = start + _passed(weights_K, chance)[0]
    return column if found.ids_K is None else int(found.ids_K[column])


def _passed(weights_N: NDArray[np.floating], share: float) -> tuple[int, float]:
    """The first column whose running sum is above a share of all, and at which share of the column that is.

    A column without weight is never it, whatever is rounded.
    """
    sums_N = weights_N.cumsum(dtype=np.float64)
    mark = min(share * sums_N[-1], math.nextafter(sums_N[-1], 0))
    column = int(sums_N.searchsorted(mark, side="right"))
    weight = float(weights_N[column])
    return column, max(0.0, mark - (float(sums_N[column]) - weight)) / weight
