"""The C files here, and what they are to agree with: little models of every family and type, and numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mypt.core.generate.native.finder import NativeFinder
from mypt.core.generate.native.layout import WHOLE_ROW
from mypt.core.generate.native.reader import MOST_TOKENS, NativeReader
from mypt.core.generate.reader import ModelReader
from mypt.core.generate.sampler import likeliest
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import quantize
from mypt.core.native.library import Code, Library, UnavailableError
from mypt.records.model import FAMILIES, ModelConfig

_AGREES_WITHIN = {"fp32": 1e-4, "int8": 0.1, "bf16": 0.05}
"""Of the logits' spread: sums are taken in another order, so what is rounded may become its neighbour, and more."""


@torch.inference_mode()
def _require_agreement(library: Library) -> None:
    """Compare with little models of every family and type, in which every number matters, and with numpy."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        scores_BV = torch.randn(3, 5003, dtype=torch.float32).numpy()
        for count in (1, 40, 3000):
            ours, theirs = NativeFinder(library, library)(scores_BV, count), likeliest(scores_BV, count)
            if not all(map(np.array_equal, ours, theirs)):
                raise UnavailableError("compiled code does not agree with numpy")
        for family in FAMILIES:
            own: dict[str, Any] = {"n_kv_head": 2} if family == "modern" else {"bias": True}
            config = ModelConfig(family=family, n_layer=2, n_head=4, n_embd=72, block_size=40, vocab_size=83, **own)
            ids = torch.randint(config.vocab_size, (config.block_size,))
            for kind, allowed in _AGREES_WITHIN.items():
                model = GPT(config).float().eval()
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
                if kind == "int8":
                    quantize(model)
                if kind == "bf16":
                    model.bfloat16()
                ours = _last_logits(library, model, ids.tolist())
                theirs = model.float()(ids[None])[0, -1]
                if not (ours - theirs).abs().max() <= allowed * theirs.std():
                    raise UnavailableError(f"compiled code does not agree with the model ({family}, {kind})")


def _last_logits(library: Library, model: GPT, ids: list[int]) -> torch.Tensor:
    """Those of a text in the second row, beside a shorter one."""
    cache = KeyValueCache(model.config, 2, len(ids), torch.device("cpu"), model.dtype)
    reader = NativeReader(library, model, cache, ModelReader(model, cache, torch.device("cpu")))
    first, second = len(ids) // 2, len(ids) - 1
    reader.read(0, ids[second:])
    reader.read(1, ids[:first])
    reader.read(1, ids[first:second])
    return torch.from_numpy(reader.step([ids[0], ids[second]])[1])


CODE = Code(
    name="read",
    folder=Path(__file__).parent,
    functions=("mypt_read", "mypt_likeliest"),
    require_agreement=_require_agreement,
    sizes=(f"-DMOST_TOKENS={MOST_TOKENS}", f"-DWHOLE_ROW={WHOLE_ROW}"),
)
