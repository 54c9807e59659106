"""Another program at the same shape and batch: a checkout, which brings its own model, loss and optimizer."""

import contextlib
import random
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

from mypt.core.bench.machine import median_step_s, peak_bytes
from mypt.core.device import choose_device
from mypt.records.bench import Job, TrainingFigures

_TOKENS = 200_000


def peer_figures(job: Job) -> TrainingFigures:
    """Do steps for some seconds as it does them; its loss is read after each, as it does by default."""
    training, model = job.config.training, job.config.model
    device = choose_device(training.device, "fp32")
    step = _step(job, device.torch)
    step_s = median_step_s(step, job.seconds)
    return TrainingFigures(
        tokens_per_s=training.batch_size * model.block_size / step_s,
        peak_bytes=peak_bytes(device),
        precision=job.precision,
    )


class _Program(NamedTuple):
    """What is another program's own."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Of ids and the next ones, each of shape (B, T)."""


def _nanogpt(job: Job, device: torch.device) -> _Program:
    from model import GPT, GPTConfig  # pyrefly: ignore [missing-import] - the checkout's

    shape, training = job.config.model, job.config.training
    names = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout", "bias")
    # As its train.py; it means nothing on a CPU.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = GPT(GPTConfig(**{name: getattr(shape, name) for name in names})).to(device)
    betas = (training.beta1, training.beta2)
    optimizer = model.configure_optimizers(training.weight_decay, training.learning_rate, betas, device.type)
    forward = torch.compile(model) if job.compiled else model

    def loss(ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        return forward(ids_BT, targets_BT)[1]

    return _Program(model, optimizer, loss)


def _litgpt(job: Job, device: torch.device) -> _Program:
    from litgpt.model import GPT, Config  # pyrefly: ignore [missing-import] - the checkout's
    from litgpt.utils import chunked_cross_entropy  # pyrefly: ignore [missing-import] - the checkout's

    shape, training = job.config.model, job.config.training
    names = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias")
    sizes = {name: getattr(shape, name) for name in names}
    model = GPT(Config(name="bench", padded_vocab_size=shape.vocab_size, **sizes)).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        weight_decay=training.weight_decay,
        fused=device.type == "cuda",
    )
    forward = torch.compile(model) if job.compiled else model

    def loss(ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        return chunked_cross_entropy(forward(ids_BT), targets_BT)

    return _Program(model, optimizer, loss)


_PROGRAMS: dict[str, Callable[[Job, torch.device], _Program]] = {"nanoGPT": _nanogpt, "litgpt": _litgpt}


def _step(job: Job, device: torch.device) -> Callable[[], None]:
    sys.path.insert(0, job.checkout)
    shape, training = job.config.model, job.config.training
    model, optimizer, loss_of = _PROGRAMS[job.program](job, device)
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
            loss = loss_of(batch(starts, 0), batch(starts, 1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step
