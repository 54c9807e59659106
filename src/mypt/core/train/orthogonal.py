"""The orthogonal matrix nearest to a given one, by matrix products alone.

Letters: K matrices, R rows, C columns.
"""

import torch
from torch import Tensor

_SAFETY = 1.01
"""What rounding may add to a singular value before the polynomials would blow it up."""

# Polar Express (Amsel, Persson, Musco and Gower, 2025): a x + b x^3 + c x^5, each the best that can follow the one
# before for singular values from 0.001 to 1. Four of them are enough for a direction.
_POLYNOMIALS = [
    (a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5)
    for a, b, c in (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    )
]

_TINY = 1e-7


def orthogonalized(matrices_KRC: Tensor) -> Tensor:
    """Bring all singular values near 1 and leave the directions as they are (Newton-Schulz; Jordan et al., 2024).

    Each matrix is its own; they share the products of one batch. A matrix of zeros stays one.
    """
    is_tall = matrices_KRC.shape[1] > matrices_KRC.shape[2]
    # The Gram matrix of the shorter side is the smaller one.
    x = matrices_KRC.mT if is_tall else matrices_KRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) * _SAFETY + _TINY)  # no singular value is above 1
    for a, b, c in _POLYNOMIALS:
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
