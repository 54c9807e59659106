"""Weights in 8 bits: a quarter of the bytes, and on CPUs up to four times the speed of generation.

    w ~ scale x q      each row of a matrix has its scale; q are whole numbers from -127 to 127

The rows of what is multiplied are rounded in the same way, while computing (vector-wise quantization: Dettmers et al.,
2022). The product is then one of whole numbers, hence exact: a row of a batch is given the same bits as alone. Where a
device has no such product that can be relied on, fp32 multiplies the same numbers.

Letters: M rows of the input, N of the weights, K numbers in each.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.errors import UsageError

_LARGEST = 127
_SMALLEST = 1e-30
"""A row of zeros has a scale too."""
_ROWS_AT_ONCE = 1024
"""What rounding takes beside the matrix is then little."""
_MOST_COLUMNS = (2**31 - 1) // _LARGEST**2
"""Sums of more products may not fit 32 bits."""
_ROWS_OF_GPU, _MULTIPLE_OF_GPU = 32, 8
"""A GPU's product takes no fewer inputs, and no other sizes of a matrix."""


class Int8Matrix(nn.Module):
    """A matrix in 8 bits."""

    def __init__(self, rows: int, columns: int) -> None:
        """Make room; what is in it comes from a file, or from `take`."""
        super().__init__()
        if columns > _MOST_COLUMNS:
            raise UsageError(f"int8: matrices of {columns:,} columns (allowed: at most {_MOST_COLUMNS:,})")
        self.register_buffer("weight", torch.empty(rows, columns, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(rows))
        self.weight: Tensor
        self.scale: Tensor

    def take(self, matrix_NK: Tensor) -> None:
        """Round a matrix to these numbers, some rows at a time."""
        for first in range(0, len(matrix_NK), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            self.weight[rows], scale_R1 = _rounded(matrix_NK[rows])
            self.scale[rows] = scale_R1[:, 0]

    def rows(self, ids: Tensor) -> Tensor:
        """Some of the rows, as they were before they were rounded, nearly."""
        return self.weight[ids] * self.scale[ids, None]

    def product(self, x: Tensor) -> Tensor:
        """The input times the transposed matrix, in fp32."""
        q_MK, scale_M1 = _rounded(x.reshape(-1, x.shape[-1]).float())
        is_exact = _fits(self.weight) and _multiplies_exactly(x.device)
        sums_MN = (_whole_product if is_exact else _fp32_product)(q_MK, self.weight)
        return (sums_MN * self.scale).mul_(scale_M1).view(*x.shape[:-1], len(self.weight))


class Int8Linear(Int8Matrix):
    """A linear layer in 8 bits; its bias is in fp32."""

    def __init__(self, rows: int, columns: int, *, bias: Tensor | None) -> None:
        super().__init__(rows, columns)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The product and the bias."""
        return self.product(x) if self.bias is None else self.product(x) + self.bias


class Int8Embedding(Int8Matrix):
    """An embedding in 8 bits; also the output head, where the two are tied."""

    def forward(self, ids: Tensor) -> Tensor:
        """The vectors of ids."""
        return self.rows(ids)


def quantize(model: nn.Module) -> None:
    """Replace all matrices of a model, one after the other: those of its blocks, the token embedding and the head.

    Norms, biases and learned positions stay: they are few.
    """
    for parent, name, matrix in _matrices(model):
        replaced = _like(matrix)
        replaced.take(matrix.weight.detach())
        setattr(parent, name, replaced)


def make_room(model: nn.Module) -> None:
    """Give a model without weights the form that `quantize` gives it."""
    for parent, name, matrix in _matrices(model):
        setattr(parent, name, _like(matrix))


def _matrices(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear | nn.Embedding]]:
    """Each matrix with the module it is in and its name there."""
    children = [(parent, *named) for parent in model.modules() for named in parent.named_children()]
    return [
        (parent, name, child)
        for parent, name, child in children
        if isinstance(child, nn.Linear) or (isinstance(child, nn.Embedding) and name == "token_embedding")
    ]


def _like(matrix: nn.Linear | nn.Embedding) -> Int8Matrix:
    with torch.device(matrix.weight.device):
        rows, columns = matrix.weight.shape
        if isinstance(matrix, nn.Linear):
            return Int8Linear(rows, columns, bias=matrix.bias)
        return Int8Embedding(rows, columns)


def _rounded(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest whole numbers once each row's largest is 127, and the scale of each row, shape (rows, 1)."""
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp_(min=_SMALLEST).mul_(1 / _LARGEST)
    return (matrix / scale).round_().to(torch.int8), scale


def is_int8(model: nn.Module) -> bool:
    """Whether a model's weights are in 8 bits."""
    return any(isinstance(module, Int8Matrix) for module in model.modules())


def _whole_product(q_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """Sums of products of whole numbers, in 32 bits."""
    rows = len(q_MK)
    if q_MK.is_cuda:
        q_MK = F.pad(q_MK, (0, 0, 0, max(0, _ROWS_OF_GPU - rows)))
    return torch._int_mm(q_MK, weight_NK.t())[:rows]  # noqa: SLF001 - torch has no other name for it


def _fp32_product(q_MK: Tensor, weight_NK: Tensor) -> Tensor:
    return F.linear(q_MK.float(), weight_NK.float())


def _fits(weight_NK: Tensor) -> bool:
    """Whether a device that multiplies exactly takes a matrix of this size."""
    if weight_NK.is_cuda:
        return all(size % _MULTIPLE_OF_GPU == 0 for size in weight_NK.shape)
    return weight_NK.shape[1] > 1  # torch 2.13 multiplies single columns wrongly


@cache
def _multiplies_exactly(device: torch.device) -> bool:
    """Whether sums of whole numbers are what they should be: processors without instructions for them may cut them."""
    if device.type not in {"cpu", "cuda"}:
        return False
    columns = 256
    signs = torch.tensor([1, -1] * (_MULTIPLE_OF_GPU // 2), device=device)
    worst = (signs[:, None] * _LARGEST).repeat(1, columns).to(torch.int8)
    # The largest and the smallest sums there are; a cut may come with one sign alone, and with one row or several.
    expected = signs[:, None] * signs * columns * _LARGEST**2
    try:
        return all(torch.equal(_whole_product(worst[:rows], worst).long(), expected[:rows]) for rows in (1, 2))
    except RuntimeError:  # a GPU, or a torch, that has no such product
        return False
