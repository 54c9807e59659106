"""Muon by our own kernels: all that is not a product of matrices, one pass for each matrix."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mypt.core.model.kernels.calls import Calls
from mypt.core.train.adamw import AdamW
from mypt.core.train.muon import MOMENTUM, ROW_DECAY, Matrix, Muon, gradient_of
from mypt.core.train.orthogonal import orthogonalized


class KernelMuon(Muon):
    """The same updates in other bits."""

    def __init__(
        self,
        row_sizes: Mapping[Tensor, Sequence[int]],
        others: AdamW,
        calls: Calls,
        *,
        peak_lr: float,
        weight_decay: float,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        """Take over parameters, on a CPU."""
        super().__init__(row_sizes, others, peak_lr=peak_lr, weight_decay=weight_decay, product_dtype=product_dtype)
        self._calls = calls

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters. All that takes memory comes before the first one moves."""
        self.make_moments()
        directions = [self._directions(matrices) for matrices in self._stacks]
        self._others.found_inf = self.found_inf
        self._others.step()
        if self.found_inf is not None and self.found_inf.item():
            return
        for matrices, directions_KRC in zip(self._stacks, directions, strict=True):
            for matrix, direction_RC in zip(matrices, directions_KRC, strict=True):
                self._move_along(matrix, direction_RC)

    def _directions(self, matrices: Sequence[Matrix]) -> Tensor:
        gradients = [gradient_of(matrix) for matrix in matrices]
        stack_KRC = gradients[0].new_empty(len(matrices), *gradients[0].shape, dtype=self._product_dtype)
        momenta = [self._kept(matrix, "momentum") for matrix in matrices]
        self._calls.muon_mix(gradients, momenta, stack_KRC, MOMENTUM**2)
        return orthogonalized(stack_KRC).contiguous()

    def _move_along(self, matrix: Matrix, direction_RC: Tensor) -> None:
        lr, weight = self._matrices.lr, matrix.of(matrix.parameter)
        assert isinstance(lr, float), "on a CPU"
        self._calls.muon_move(
            weight,
            gradient_of(matrix),
            self._kept(matrix, "momentum"),
            self._kept(matrix, "row_squares"),
            direction_RC,
            rate=lr * math.sqrt(max(1.0, weight.shape[0] / weight.shape[1])),
            shrink=1 - lr * self._matrices.weight_decay,
            momentum_share=MOMENTUM,
            row_share=1 - ROW_DECAY,
        )
