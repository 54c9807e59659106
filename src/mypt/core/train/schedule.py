"""The learning rate as a pure function of the step."""

import math

from mypt.records.run import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Rate of update number `step` (the first is 0): linear warm-up, then cosine decay to the end.

    Warm-up takes half of the run at most. The first update already moves, and the last one uses min_lr_ratio x the peak
    (Loshchilov and Hutter, 2017).
    """
    warmup = min(config.warmup_iters, config.max_iters // 2)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup + 1) / max(1, config.max_iters - warmup)
    share = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * share)
