"""Logits -> the next id. Pure: the same logits, settings and generator state give the same id."""

import torch
from torch import Tensor

from mypt.records.sampling import SamplingConfig


def sample(logits_V: Tensor, config: SamplingConfig, generator: torch.Generator) -> int:
    """Choose one id.

    Args:
        logits_V: scores of the ids that may be chosen, shape (V,).
        config: temperature (0 is greedy), top_k, top_p.
        generator: the source of chance, on the CPU.
    """
    if config.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V = filtered_probabilities(logits_V, config)
    return int(torch.multinomial(probabilities_V, 1, generator=generator))


def filtered_probabilities(logits_V: Tensor, config: SamplingConfig) -> Tensor:
    """The distribution that is sampled: temperature, then top-k, then top-p. Shape (V,).

    top-p is nucleus sampling (Holtzman et al., 2020): the likeliest ids until their probabilities
    reach p; the id that reaches it is kept.
    """
    # In double precision and with the peak at zero: any temperature above zero stays finite.
    scaled_V = (logits_V.cpu().double() - logits_V.max().item()) / config.temperature
    if config.top_k is not None and config.top_k < scaled_V.numel():
        smallest = scaled_V.topk(config.top_k).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < smallest, -torch.inf)
    probabilities_V = scaled_V.softmax(dim=-1)
    if config.top_p is not None and config.top_p < 1:
        ordered, indices = probabilities_V.sort(descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        dropped = indices[before >= config.top_p]
        probabilities_V = probabilities_V.index_fill(0, dropped, 0.0)
        probabilities_V = probabilities_V / probabilities_V.sum()
    return probabilities_V
