"""Which optimizer moves which parameter, how fast and with how much decay."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mypt.core.model.kernels.code import open_kernels
from mypt.core.model.linear import FusedLinear
from mypt.core.train.adamw import AdamW, Group
from mypt.core.train.muon import Muon
from mypt.core.train.muon_kernels import KernelMuon
from mypt.records.run import TrainingConfig

_EMBEDDING_SHARE, _HEAD_SHARE, _VECTOR_SHARE = 0.5, 0.1, 0.1
"""What is beside Muon's matrices learns at these shares of their rate: one knob turns all."""


def build_optimizer(
    model: nn.Module, config: TrainingConfig, precision: str = "fp32", *, kernels: bool = False
) -> AdamW | Muon:
    """Build the optimizer of a run.

    Args:
        model: whose parameters it moves.
        config: which optimizer, and how fast it is.
        precision: of the products of matrices in it.
        kernels: whether Muon is to use our own.
    """
    return _muon(model, config, precision, kernels=kernels) if config.optimizer == "muon" else _adamw(model, config)


def _adamw(model: nn.Module, config: TrainingConfig) -> AdamW:
    """One group of matrices with weight decay, one of vectors (norms, biases) without."""
    parameters = _trained(list(model.parameters()))
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    return AdamW(
        [Group(matrices, config.learning_rate, config.weight_decay), Group(vectors, config.learning_rate)],
        beta1=config.beta1,
        beta2=config.beta2,
    )


def _muon(model: nn.Module, config: TrainingConfig, precision: str, *, kernels: bool) -> Muon:
    """Muon for what maps hidden states to hidden states, the weights of linear layers; AdamW for the rest."""
    head = getattr(model, "head", None)
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    heads = [] if head is None else [head.weight]
    row_sizes = {
        module.weight: module.row_sizes if isinstance(module, FusedLinear) else (module.out_features,)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head and module.weight.requires_grad
    }
    elsewhere = {*row_sizes, *embeddings, *heads}
    vectors = [parameter for parameter in model.parameters() if parameter not in elsewhere]
    rate = config.learning_rate
    others = AdamW(
        [
            Group(_trained(embeddings), rate * _EMBEDDING_SHARE),
            Group(_trained(heads), rate * _HEAD_SHARE),
            Group(_trained(vectors), rate * _VECTOR_SHARE),
        ],
        beta1=config.beta1,
        beta2=config.beta2,
    )
    # Not in fp16: momenta are smaller than its numbers.
    dtype = torch.bfloat16 if precision == "bf16" else None
    how = {"peak_lr": rate, "weight_decay": config.weight_decay, "product_dtype": dtype}
    if kernels:
        return KernelMuon(row_sizes, others, open_kernels().calls, **how)
    return Muon(row_sizes, others, **how)


def _trained(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]
