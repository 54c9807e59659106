"""Another program at the same shape and batch: a checkout of nanoGPT, which brings its own model and optimizer."""

import contextlib
import random
import sys
from collections.abc import Callable

import torch

from mypt.core.bench.machine import median_step_s, peak_bytes
from mypt.core.device import choose_device
from mypt.records.bench import Job, TrainingFigures

_TOKENS = 200_000


def peer_figures(job: Job) -> TrainingFigures:
    """Do steps for some seconds as its train.py does them; its loss is read after each, as it does by default."""
    training, model = job.config.training, job.config.model
    device = choose_device(training.device, "fp32")
    step = _step(job, device.torch)
    step_s = median_step_s(step, job.seconds)
    return TrainingFigures(
        tokens_per_s=training.batch_size * model.block_size / step_s,
        peak_bytes=peak_bytes(device),
        precision=job.precision,
    )


def _step(job: Job, device: torch.device) -> Callable[[], None]:
    sys.path.insert(0, job.checkout)
    from model import GPT, GPTConfig  # pyrefly: ignore [missing-import] - the checkout's

    shape, training = job.config.model, job.config.training
    names = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout", "bias")
    sizes = {name: getattr(shape, name) for name in names}
    # As its train.py; it means nothing on a CPU.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = GPT(GPTConfig(**sizes)).to(device)
    betas = (training.beta1, training.beta2)
    optimizer = model.configure_optimizers(training.weight_decay, training.learning_rate, betas, device.type)
    forward = torch.compile(model) if job.compiled else model
    data = torch.randint(shape.vocab_size, (max(_TOKENS, 2 * shape.block_size + 2),))
    is_pinned = device.type == "cuda"

    def batch(starts: list[int], shift: int) -> torch.Tensor:
        rows_BT = torch.stack([data[start + shift : start + shift + shape.block_size] for start in starts])
        return (rows_BT.pin_memory() if is_pinned else rows_BT).to(device, non_blocking=is_pinned)

    def step() -> None:
        starts = random.choices(range(len(data) - shape.block_size - 1), k=training.batch_size)  # noqa: S311 - places
        is_narrow = job.precision == "bf16"
        narrow = torch.autocast(device.type, torch.bfloat16) if is_narrow else contextlib.nullcontext()
        with narrow:
            loss = forward(batch(starts, 0), batch(starts, 1))[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step
