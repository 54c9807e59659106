"""The blocks of a model as compiled code, for training alone.

One block is compiled and all others run its code, since only their weights differ: to compile all layers as one would
take several times as long and gain nothing. Evaluation takes the blocks as they are written.
"""

import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch

from mypt.core.model.gpt import GPT


def compile_blocks(model: GPT) -> None:
    """From now on run the blocks as compiled code; it is made when they run first, for the shapes they then meet."""
    # torch's own compiler looks there, at what one block hands to the next.
    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
    for block in model.blocks:
        block.compile(fullgraph=True, dynamic=False, options={"deterministic": True})


@contextmanager
def as_written() -> Generator[None]:
    """Run no compiled code meanwhile: for what runs too seldom to be worth another compilation."""
    with torch.compiler.set_stance("force_eager"):
        yield
