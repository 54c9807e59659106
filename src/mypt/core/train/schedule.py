"""The learning rate as a pure function of the step.

After warm-up it falls: as `cosine` half a wave (Loshchilov and Hutter, 2017), as `linear` evenly, and as `wsd` evenly
too, but only in the last `decay_share` of the run (Hu et al., 2024).
"""

import math

from mypt.records.run import TrainingConfig


def learning_rate(peak: float, step: int, config: TrainingConfig) -> float:
    """Rate of update number `step` (the first is 0), for parameters whose highest rate is `peak`.

    Warm-up takes half of the run at most. The first update already moves; the last one uses min_lr_ratio x the peak.
    """
    warmup = min(config.warmup_iters, config.max_iters // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (config.min_lr_ratio + (1 - config.min_lr_ratio) * _height(step, warmup, config))


def _height(step: int, warmup: int, config: TrainingConfig) -> float:
    """How far up a step after warm-up is between the end, 0, and the peak, 1."""
    done, steps = min(step + 1, config.max_iters), config.max_iters
    progress = (done - warmup) / max(1, steps - warmup)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "linear":
        return 1 - progress
    return min(1.0, (steps - done) / max(1.0, min(config.decay_share * steps, steps - warmup)))
