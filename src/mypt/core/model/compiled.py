"""The blocks of a model, and on a GPU its loss, as compiled code, for training alone.

One block is compiled and all others run its code, since only their weights differ: to compile all layers as one would
take several times as long and gain nothing. Evaluation takes the blocks as they are written.
"""

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial

import torch

from mypt.core.model.blockwise import block_mask, does_blockwise
from mypt.core.model.gpt import GPT
from mypt.core.model.loss import head_loss, logits_to_gradient
from mypt.core.trials import cache_folder
from mypt.durable import make_directory

_MOST_SHAPES = 64
"""All models of a process share these: torch's own limit of eight is for one function of one program."""

_OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"deterministic": True}

# torch's compiler, which looks at what one block hands to the next, and which would have fp32 be less than fp32.
_WARNINGS = (r"The \.grad attribute of a Tensor that is not a leaf", r"TensorFloat32 tensor cores")


def compile_blocks(model: GPT) -> None:
    """From now on run the blocks as compiled code; it is made when they run first, for the shapes they then meet.

    On a GPU the loss too; and the mask takes the form that is fast there.
    """
    import torch._dynamo.config as limits

    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    limits.recompile_limit = max(_MOST_SHAPES, limits.recompile_limit)
    _keep_compiled_code()
    for block in model.blocks:
        block.compile(fullgraph=True, dynamic=False, options=_OPTIONS)
    weight, config = model.final_norm.weight, model.config
    if does_blockwise(config.head_width, weight.dtype, weight.device, config.dropout):
        model.training_mask = block_mask
    if weight.is_cuda:
        # A CPU does it part by part, in its cache, as fast as compiled code.
        to_gradient = torch.compile(logits_to_gradient, fullgraph=True, dynamic=False, options=_OPTIONS)
        model.head_loss = partial(head_loss, to_gradient=to_gradient)


@contextmanager
def as_written() -> Generator[None]:
    """Run no compiled code meanwhile: for what runs too seldom to be worth another compilation."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _keep_compiled_code() -> None:
    """Have torch keep what it compiles beside our trials, and not where the system clears it at every start."""
    with suppress(OSError, RuntimeError):
        # The number of threads stands in the code, and not in every torch's key to it.
        folder = cache_folder() / "compiled" / f"torch-{torch.__version__}-{torch.get_num_threads()}-threads"
        make_directory(folder)
        if os.access(folder, os.W_OK):
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
