"""What a step needs and what the machine has; what to do when the one is more than the other."""

from bisect import bisect_right
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from mypt.core.device import Device, is_shortage, shortage_told
from mypt.core.limits import memory_limit_bytes
from mypt.core.train.session import Session
from mypt.errors import MemoryShortageError
from mypt.events import Warned
from mypt.records.batch import even_pieces
from mypt.records.memory import StepShape, TrainingMemory
from mypt.records.presets import load_preset, preset_names
from mypt.records.run import RunConfig
from mypt.units import human_bytes, human_count, several

T = TypeVar("T")

_SHORTEST_BLOCK = 32
_FILLED = 0.8
"""What a number of sequences that we choose may take of the memory: the estimate was up to a tenth below the measured
peak, and another tenth is for the text, and for the system and its page cache."""
_MOST_TOKENS_ON_CPU = 4096
"""By then a step takes a quarter of the processor's time that it takes with 512; 8,192 showed no clear gain more."""


def device_limit_bytes(device: Device) -> int | None:
    """Bytes this process may use at most on the device; None where nobody can say."""
    return torch.cuda.mem_get_info(device.torch)[1] if device.kind == "cuda" else memory_limit_bytes()


def step_shape(config: RunConfig, device: Device) -> StepShape:
    """What the memory of a run's step depends on."""
    return StepShape.of(
        config.model,
        config.training,
        device.precision,
        on_gpu=device.kind == "cuda",
        compiled=device.compiled,
        kernels=device.kernels,
        cuda_build=torch.version.cuda is not None,
    )


def step_memory(config: RunConfig, device: Device, sequences: int) -> TrainingMemory:
    """The estimate for steps of `sequences` sequences at once."""
    training = config.training.model_copy(update={"micro_batch_size": sequences})
    return step_shape(config.model_copy(update={"training": training}), device).memory()


def predicted_bytes(config: RunConfig, device: Device, sequences: int) -> int:
    """Peak on the device of steps of `sequences` sequences at once, the copy that is saved left out."""
    memory = step_memory(config, device, sequences)
    return memory.peak - memory.snapshot


def fitting_sequences(config: RunConfig, device: Device) -> int:
    """How many sequences at once fit by the estimate: the wanted number, or the most that make even pieces of a step.

    Raises:
        MemoryShortageError: when weights, gradients and optimizer alone are more than the machine has.
    """
    limit, sequences = device_limit_bytes(device), config.training.sequences_at_once
    if limit is None:
        return sequences
    parts = step_memory(config, device, 1)
    if parts.weights + parts.gradients + parts.optimizer > limit:
        raise memory_shortage(config, device)
    fitting = _most_that_fit(config, device, sequences, limit)
    return sequences if fitting == sequences else even_pieces(config.training.batch_size, max(1, fitting))


def chosen_sequences(config: RunConfig, device: Device) -> int:
    """How many sequences at once are best where nobody says it: even pieces of a step that leave some memory free.

    It depends on what memory there is, not on how much of it is free just now: every run would have bits of its own.

    Raises:
        MemoryShortageError: when not even one is less than the machine has.
    """
    batch_size, limit = config.training.batch_size, device_limit_bytes(device)
    most = batch_size
    if device.kind == "cpu":
        most = min(batch_size, max(1, _MOST_TOKENS_ON_CPU // config.model.block_size))
    if limit is not None:
        if predicted_bytes(config, device, 1) > limit:
            raise memory_shortage(config, device)
        most = max(1, _most_that_fit(config, device, most, int(_FILLED * limit)))
    return even_pieces(batch_size, most)


def _most_that_fit(config: RunConfig, device: Device, most: int, limit: int) -> int:
    """The largest number of sequences up to `most` whose step takes no more than the limit; 0 if there is none."""
    # Asked first: a step in one piece may need less than one in pieces, whose gradients add up.
    if predicted_bytes(config, device, most) <= limit:
        return most
    return bisect_right(range(1, most), limit, key=lambda sequences: predicted_bytes(config, device, sequences))


def copy_fits(config: RunConfig, device: Device, sequences: int) -> bool:
    """Whether there is room for one more copy of weights and moments in the machine's own memory."""
    snapshot = step_shape(config, device).snapshot_bytes
    limit = memory_limit_bytes()
    used = predicted_bytes(config, device, sequences) if device.kind == "cpu" else 0
    return limit is None or used + snapshot <= limit


def memory_shortage(config: RunConfig, device: Device) -> MemoryShortageError:
    """The error for a model that does not fit, with what it needs, what there is and what would fit."""
    needed = predicted_bytes(config, device, 1)
    limit = device_limit_bytes(device)
    there = f", of {human_bytes(limit)} that this process may have" if limit else ""
    return MemoryShortageError(
        f"out of memory: by the estimate {human_count(config.model.parameters)} parameters need {human_bytes(needed)} "
        f"to learn from one sequence of {config.model.block_size:,} tokens at a time{there}",
        hint=_what_fits(config, device, limit or needed),
    )


def in_memory(session: Session, work: Callable[[], T]) -> Generator[Warned, None, T]:
    """Do what takes sequences; where memory runs out, with half as many at once.

    Raises:
        MemoryShortageError: when one sequence is too many.
    """
    while True:
        try:
            return work()
        except (MemoryError, RuntimeError) as problem:
            if not is_shortage(problem):
                raise
        # Only here are the step's tensors gone, which the error held.
        if session.sequences_at_once == 1:
            raise memory_shortage(session.config, session.device)
        session.halve()
        yield Warned(
            f"out of memory: from now on {several(session.sequences_at_once, 'sequence')} at once, "
            f"{session.config.training.batch_size} per step as before"
        )


def clear_shortage(config: RunConfig, device: Device) -> AbstractContextManager[None]:
    """Say in our words that a step does not fit.

    Raises:
        MemoryShortageError: on leaving it, instead of torch's and Python's own errors.
    """
    return shortage_told(lambda: memory_shortage(config, device))


def _what_fits(config: RunConfig, device: Device, limit: int) -> str:
    def fits(candidate: RunConfig) -> bool:
        return predicted_bytes(candidate, device, 1) < limit

    told = ""
    if not config.training.checkpoint_activations:
        training = config.training.model_copy(update={"checkpoint_activations": True})
        smaller = config.model_copy(update={"training": training})
        told = f"--checkpoint-activations needs {human_bytes(predicted_bytes(smaller, device, 1))}, which "
        if fits(smaller):
            return f"{told}fits."
        told += "does not fit either. "
    block_size = config.model.block_size // 2
    while block_size >= _SHORTEST_BLOCK:
        shorter = config.model_copy(update={"model": config.model.model_copy(update={"block_size": block_size})})
        if fits(shorter):
            return f"{told}A new model with --block-size {block_size} fits."
        block_size //= 2
    for name in reversed(preset_names()):
        preset = load_preset(name)
        rows = max(preset.model.vocab_size, config.model.vocab_size)
        preset = preset.model_copy(update={"model": preset.model.model_copy(update={"vocab_size": rows})})
        if preset.model.parameters < config.model.parameters and fits(preset):
            return f"{told}A new model with --config-file {name} --micro-batch-size 1, and no sizes of its own, fits."
    return f"{told}No shipped preset fits either: use a machine with more memory."
