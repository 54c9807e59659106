"""Which precision is the fastest here: the machine itself is asked, with a block of the model that is to be trained.

    a trial that was kept, or a block in fp32 and in bf16 in turns -> bf16 where it is clearly faster

That a processor has instructions for bf16 does not tell: a narrow model gains nothing by them. That it has none does:
there bf16 is emulated. No GPU is asked either.
"""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace

import torch

from mypt.core.device import Device, Precision
from mypt.core.limits import free_memory_bytes, memory_limit_bytes
from mypt.core.model.kernels.code import NO_KERNELS, open_kernels, place_kernels
from mypt.core.model.kernels.functions import Kernels
from mypt.core.model.layers import Block
from mypt.core.model.rotary import rotation_at
from mypt.core.trials import find_trial, keep_trial, machine_facts
from mypt.events import Event, Noted
from mypt.records.memory import StepShape
from mypt.records.model import ModelConfig
from mypt.records.trial import Trial

_CLEARLY_FASTER = 1.2
"""Below, the more precise of the two is better."""
_FAR_SLOWER = 3.0
"""From here on a larger trial would end alike."""
_LONGEST_S = 2.0
_FEWEST_ROUNDS, _MOST_ROUNDS = 2, 5
_FEWEST_TOKENS, _MOST_TOKENS = 64, 1024


def with_fastest_precision(device: Device, model: ModelConfig) -> Generator[Event, None, Device]:
    """On a CPU: bf16 where it is clearly faster for this model, else fp32. Tells of a trial that had to be made.

    A model of which one block does not fit is not tried: whoever builds it says what it needs.
    """
    kernels = open_kernels() if device.kernels else None
    facts = machine_facts() | _block_facts(model) | {"kernels": kernels.calls.library.digest if kernels else NO_KERNELS}
    trial = find_trial("bf16", facts)
    if trial is None and not _fits(model):
        return replace(device, precision="fp32")
    if trial is None:
        usual_s, tried_s = _seconds_of_a_block(model, kernels)
        trial = Trial(question="bf16", facts=facts, usual_s=usual_s, tried_s=tried_s)
        keep_trial(trial)
        yield Noted(_told(trial))
    return replace(device, precision=_faster(trial))


def _fits(model: ModelConfig) -> bool:
    """Whether one block in both precisions, its gradients and what it keeps are less than the free memory."""
    window = min(_MOST_TOKENS, model.block_size)
    block = model.model_copy(update={"n_layer": 1, "vocab_size": 1, "block_size": window})
    parts = StepShape(model=block, batch_size=-(-_MOST_TOKENS // window)).memory()
    free = [limit for limit in (memory_limit_bytes(), free_memory_bytes()) if limit is not None]
    return 2 * (parts.weights + parts.gradients + parts.activations + parts.workspace) < min(free, default=math.inf)


def _faster(trial: Trial) -> Precision:
    return "bf16" if trial.gain >= _CLEARLY_FASTER else "fp32"


def _told(trial: Trial) -> str:
    if trial.gain >= 1:
        return f"bf16 is {trial.gain:.1f} times as fast as fp32 here: {_faster(trial)}"
    return f"bf16 takes {1 / trial.gain:.1f} times as long as fp32 here: {_faster(trial)}"


def _block_facts(model: ModelConfig) -> dict[str, str]:
    names = ("family", "n_embd", "n_head", "kv_heads", "inner_width", "block_size", "dropout")
    return {name: str(getattr(model, name)) for name in names}


def _seconds_of_a_block(model: ModelConfig, kernels: Kernels | None) -> tuple[float, float]:
    """Time one block, forward and backward, in fp32 and in bf16; with more tokens too, if there is time for it."""
    ends_s = time.monotonic() + _LONGEST_S
    usual_s, tried_s = _best_of_turns(model, kernels, _FEWEST_TOKENS, ends_s)
    is_clear = tried_s >= _FAR_SLOWER * usual_s
    more_s = _FEWEST_ROUNDS * (usual_s + tried_s) * _MOST_TOKENS / _FEWEST_TOKENS
    if is_clear or time.monotonic() + more_s > ends_s:
        return usual_s, tried_s
    return _best_of_turns(model, kernels, _MOST_TOKENS, ends_s)


def _best_of_turns(model: ModelConfig, kernels: Kernels | None, tokens: int, ends_s: float) -> tuple[float, float]:
    """The least seconds of each: the first round prepares the others, and what else the machine does only adds."""
    usual, tried = (_work(model, kernels, dtype, tokens) for dtype in (torch.float32, torch.bfloat16))
    usual_s = tried_s = math.inf
    for done in range(1, _MOST_ROUNDS + 1):
        started_s = time.monotonic()
        usual_s, tried_s = min(usual_s, _seconds(usual)), min(tried_s, _seconds(tried))
        round_s = time.monotonic() - started_s
        is_late = time.monotonic() + round_s > ends_s
        if done >= _FEWEST_ROUNDS and (is_late or tried_s >= _FAR_SLOWER * usual_s):
            break
    return usual_s, tried_s


def _seconds(work: Callable[[], None]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _work(model: ModelConfig, kernels: Kernels | None, dtype: torch.dtype, tokens: int) -> Callable[[], None]:
    """A step of one block on about so many tokens; the caller's random numbers stay what they were."""
    T = min(tokens, model.block_size)
    with torch.random.fork_rng(devices=[]):
        block = Block(model, 0).to(dtype)
        if kernels:
            place_kernels(block, kernels)
        x_BTC = torch.randn(max(1, tokens // T), T, model.n_embd, dtype=dtype, requires_grad=True)
    rotation = rotation_at(torch.arange(T), model.head_width, model.rope_base) if model.traits.rotary else None

    def step() -> None:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            y_BTC = block(x_BTC, rotation=rotation)
            torch.autograd.backward(y_BTC, torch.ones_like(y_BTC))
        block.zero_grad(set_to_none=True)
        x_BTC.grad = None

    return step
