"""Muon: every matrix moves by the orthogonal matrix nearest to its momentum (Jordan et al., 2024).

    gradient -> Nesterov momentum -> orthogonalized -> rows of even length -> step

Rows are made even by a running mean of their squares, and the whole keeps its norm (NorMuon: Li et al., 2025). What is
no matrix between hidden states (embeddings, output head, norms, biases) is AdamW's.

Letters: K matrices, R rows, C columns.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mypt.core.train.adamw import AdamW, Group
from mypt.core.train.orthogonal import orthogonalized
from mypt.records.memory import STACKED_NUMBERS

MOMENTUM = 0.95
ROW_DECAY = 0.95
_TINY = 1e-10


class Matrix(NamedTuple):
    """Rows of a parameter that are a matrix of their own."""

    parameter: Tensor
    rows: slice

    def of(self, tensor: Tensor) -> Tensor:
        """Give these rows of the parameter, or of what is kept for each of its rows."""
        return tensor[self.rows]


class Move(NamedTuple):
    """Where matrices of one shape are to go, before any of them has moved."""

    matrices: Sequence[Matrix]
    directions_KRC: Tensor
    row_scales_KR1: Tensor
    row_squares_KR1: Tensor
    """The running means, this step's rows included."""


class Muon:
    """Muon for matrices, AdamW for the rest, as one optimizer with one memory.

    In a step where `found_inf` is 1 weights and moments stay as they are, and nothing waits for the device.
    """

    def __init__(
        self,
        row_sizes: Mapping[Tensor, Sequence[int]],
        others: AdamW,
        *,
        peak_lr: float,
        weight_decay: float,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        """Take over parameters.

        Args:
            row_sizes: each matrix parameter, with the rows of every matrix that it is made of.
            others: the optimizer of all other parameters; it becomes a part of this one.
            peak_lr: of the matrices.
            weight_decay: the share by which a matrix shrinks at a learning rate of 1.
            product_dtype: what directions are computed in; the matrices' own type if not given.
        """
        self._matrices = Group(list(row_sizes), peak_lr, weight_decay)
        self._others = others
        # The same groups and the same memory: a rate that is set here counts there.
        self.groups = [self._matrices, *others.groups]
        self.state = others.state
        self.found_inf: Tensor | None = None
        self._stacks = _by_shape(row_sizes)
        self._product_dtype = product_dtype

    def make_moments(self) -> None:
        """Make the memory of all parameters."""
        for parameter in self._matrices.parameters:
            if parameter not in self.state:
                self.state[parameter] = {
                    "momentum": torch.zeros_like(parameter),
                    "row_squares": parameter.new_zeros(len(parameter), 1),
                }
        self._others.make_moments()

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters. All that takes memory comes before the first one moves."""
        self.make_moments()
        moves = [self._find(matrices) for matrices in self._stacks]
        self._others.found_inf = self.found_inf
        self._others.step()
        for move in moves:
            for matrix, *where in zip(*move, strict=True):
                self._move(matrix, *where)

    def _find(self, matrices: Sequence[Matrix]) -> Move:
        """Find the directions of matrices of one shape; nothing is changed."""
        first = matrices[0].of(matrices[0].parameter)
        stack_KRC = first.new_empty(len(matrices), *first.shape, dtype=self._product_dtype or first.dtype)
        for place_RC, matrix in zip(stack_KRC, matrices, strict=True):
            gradient, momentum = gradient_of(matrix), self._kept(matrix, "momentum")
            # Nesterov: the momentum as it will be, and this gradient once more.
            place_RC.copy_(gradient.lerp(momentum, MOMENTUM**2))
        directions_KRC = orthogonalized(stack_KRC)
        squares_KR1 = directions_KRC.float().square().mean(dim=2, keepdim=True)
        before_KR1 = torch.stack([self._kept(matrix, "row_squares") for matrix in matrices])
        running_KR1 = before_KR1.lerp(squares_KR1.to(before_KR1.dtype), 1 - ROW_DECAY)
        scales_KR1 = running_KR1.clamp(min=_TINY).rsqrt()
        norms_K11 = squares_KR1.sum(dim=1, keepdim=True).sqrt()
        scaled_K11 = (squares_KR1 * scales_KR1.square()).sum(dim=1, keepdim=True).sqrt()
        return Move(matrices, directions_KRC, scales_KR1 * norms_K11 / scaled_K11.clamp(min=_TINY), running_KR1)

    def _move(self, matrix: Matrix, direction_RC: Tensor, row_scales_R1: Tensor, row_squares_R1: Tensor) -> None:
        """Change one matrix and its moments. What is new is made in the memory of the gradient, which is done with."""
        lr, weight_decay = self._matrices.lr, self._matrices.weight_decay
        weight, new = matrix.of(matrix.parameter), gradient_of(matrix)
        momentum = self._kept(matrix, "momentum")
        self._put(new.lerp_(momentum, MOMENTUM), into=momentum)
        self._put(row_squares_R1, into=self._kept(matrix, "row_squares"))
        rows, columns = weight.shape
        rate = lr * math.sqrt(max(1.0, rows / columns))
        new.copy_(direction_RC).mul_(row_scales_R1).mul_(-rate)
        self._put(_plus(new, weight, 1 - lr * weight_decay), into=weight)

    def _put(self, new: Tensor, *, into: Tensor) -> None:
        if self.found_inf is None:
            into.copy_(new)
        else:
            torch.where(self.found_inf > 0, into, new, out=into)

    def _kept(self, matrix: Matrix, key: str) -> Tensor:
        return matrix.of(self.state[matrix.parameter][key])


def _plus(new: Tensor, weight: Tensor, share: float | Tensor) -> Tensor:
    return new.addcmul_(weight, share) if isinstance(share, Tensor) else new.add_(weight, alpha=share)


def gradient_of(matrix: Matrix) -> Tensor:
    """What the loss left for a matrix."""
    gradient = matrix.parameter.grad
    assert gradient is not None, "every matrix took part in the loss"
    return matrix.of(gradient)


def _by_shape(row_sizes: Mapping[Tensor, Iterable[int]]) -> list[list[Matrix]]:
    """All matrices, those of one shape together, as many as are worth it."""
    found: dict[tuple[int, int], list[Matrix]] = {}
    for parameter, sizes in row_sizes.items():
        for start, end in pairwise(accumulate(sizes, initial=0)):
            shape = (end - start, parameter.shape[1])
            found.setdefault(shape, []).append(Matrix(parameter, slice(start, end)))
    stacks: list[list[Matrix]] = []
    for shape, matrices in found.items():
        count = max(1, STACKED_NUMBERS // math.prod(shape))
        stacks += [matrices[start : start + count] for start in range(0, len(matrices), count)]
    return stacks
