"""Which C files these are, what they are to agree with, and the models that use them."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mypt.core.model.attention import Documents
from mypt.core.model.gpt import GPT
from mypt.core.model.kernels.calls import NUMBERS_AT_ONCE, ROWS_AT_ONCE, Calls
from mypt.core.model.kernels.functions import Kernels
from mypt.core.model.layers import Attention, Block, Dropout, Gelu, LayerNorm, RmsNorm, SwiGlu
from mypt.core.model.linear import Linear
from mypt.core.model.loss import head_loss
from mypt.core.native.library import Code, Library, UnavailableError, open_library
from mypt.records.model import FAMILIES, FamilyName, ModelConfig

NO_KERNELS = "no"
"""What a state says where a run has none; else which they are, since other compilers may make others."""
_AGREES_WITHIN = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""Of each gradient's norm: sums are taken in another order. In bf16 torch's own are up to 0.08 from those in fp32."""
_HEAD_WITHIN, _SOME_TOKENS = 0.02, 4200
"""Of its gradients' norms, whose parts are rounded to bf16 once; and a vocabulary of several blocks."""


@cache
def open_kernels() -> Kernels:
    """The kernels for this processor.

    Raises:
        UnavailableError: where there are none.
    """
    return Kernels(Calls(open_library(CODE)))


def place_in_model(model: GPT, kernels: Kernels) -> None:
    """Have a model, and all parts of it, call these kernels."""
    model.head_loss = kernels.head_loss
    model.training_mask = _documents
    place_kernels(model, kernels)


def place_kernels(module: nn.Module, kernels: Kernels) -> None:
    """Have all parts of a module call these kernels."""
    for part in module.modules():
        if isinstance(part, (Attention, Block, Dropout, Gelu, LayerNorm, Linear, RmsNorm, SwiGlu)):
            part.kernels = kernels


def _documents(_ids_BT: Tensor, documents_BT: Tensor | None) -> Documents | None:
    """The mask as they want it."""
    return None if documents_BT is None else Documents(documents_BT.contiguous())


def _require_agreement(library: Library) -> None:
    """Compare loss and gradients of little models of every family with those of torch in fp32."""
    calls = Calls(library)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        _require_agreement_of_muon(calls)
        _require_agreement_of_head(calls)
        _require_agreement_of_turning(calls)
        _require_agreement_of_parts(calls)
        for family in FAMILIES:
            # Sizes that fit nothing, and those that fit all, by parts and by whole blocks.
            parts, whole = Kernels(calls, fewest_numbers=0, most_in_block=0), Kernels(calls)
            _require_agreement_of_model(_example(family, 72, 70), parts, torch.float32)
            for width, length, kernels in ((72, 70, parts), (64, 64, parts), (64, 64, whole)):
                _require_agreement_of_model(_example(family, width, length), kernels, torch.bfloat16)


def _require_agreement_of_model(model: GPT, kernels: Kernels, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    expected = _loss_and_gradients(copy.deepcopy(model).float())
    place_in_model(model, kernels)
    found = _loss_and_gradients(model)
    if not all((a - b).norm() <= _AGREES_WITHIN[dtype] * a.norm() for a, b in zip(expected, found, strict=True)):
        raise UnavailableError(f"kernels do not agree with the model ({model.config.family}, {dtype})")


def _require_agreement_of_muon(calls: Calls) -> None:
    """Compare one move of a matrix with the same, written out."""
    weights, gradients, momentum, directions, mixed = torch.randn(5, 11, 37, dtype=torch.float32)
    row_squares = torch.rand(11, 1, dtype=torch.float32)
    squares = directions.square().mean(1, keepdim=True)
    running = row_squares.lerp(squares, 0.1)
    even = directions * running.rsqrt()
    even *= directions.norm() / even.norm()
    expected = [gradients.lerp(momentum, 0.7), weights * 0.8 - 0.3 * even, gradients.lerp(momentum, 0.9), running]
    calls.muon_mix([gradients], [momentum], mixed[None], 0.7)
    shares = {"rate": 0.3, "shrink": 0.8, "momentum_share": 0.9, "row_share": 0.1}
    calls.muon_move(weights, gradients, momentum, row_squares, directions, **shares)
    for theirs, ours in zip(expected, (mixed, weights, momentum, row_squares), strict=True):
        if not (ours - theirs).norm() <= _AGREES_WITHIN[torch.float32] * theirs.norm():
            raise UnavailableError("kernels do not agree with Muon")


def _require_agreement_of_turning(calls: Calls) -> None:
    x_NC = torch.randn(96, 160).bfloat16()
    if not torch.equal(calls.turned(x_NC), x_NC.t()):
        raise UnavailableError("kernels do not turn a matrix over")


def _require_agreement_of_parts(calls: Calls) -> None:
    """Compare what is done to all parameters: clipping, and numbers of the other kind."""
    gradients = [torch.randn(5000), torch.randn(7, 3)]
    narrow = [each.bfloat16() for each in gradients]
    found = [torch.empty_like(each) for each in narrow]
    calls.convert(found, gradients)
    norm = torch.cat([each.flatten() for each in gradients]).norm()
    expected = [*narrow, norm, *(each / norm for each in gradients)]
    clipped_from = torch.tensor(calls.clip(gradients, 1.0))
    if not all(map(torch.allclose, [*found, clipped_from, *gradients], expected)):
        raise UnavailableError("kernels do not agree with torch on all parameters")


def _require_agreement_of_head(calls: Calls) -> None:
    """Compare the head in bf16, where there is one, with that in fp32."""
    hidden_NC, weight_VC = torch.randn(150, 64).bfloat16(), torch.randn(_SOME_TOKENS, 64).bfloat16()
    if not calls.does_head(hidden_NC, weight_VC):
        return
    targets_N, divisor = torch.arange(150) * 37 % _SOME_TOKENS, torch.tensor(7.0)
    targets_N[::5] = -1
    expected = head_loss(hidden_NC.float(), weight_VC.float(), None, targets_N, divisor)
    losses_N, *gradients = calls.head(hidden_NC, weight_VC, targets_N, divisor)
    pairs = zip((expected.total, expected.hidden_NC, expected.weight_VC), (losses_N.sum(), *gradients), strict=True)
    if not all((theirs - ours).norm() <= _HEAD_WITHIN * theirs.norm() for theirs, ours in pairs):
        raise UnavailableError("kernels do not agree with the loss")


def _example(family: FamilyName, width: int, length: int) -> GPT:
    """A model in which every number matters."""
    own: dict[str, Any] = {"n_kv_head": 2} if family == "modern" else {"bias": True}
    sizes = {"n_layer": 1, "n_head": 4, "n_embd": width, "block_size": length, "vocab_size": 83}
    model = GPT(ModelConfig(family=family, **sizes, **own)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def _loss_and_gradients(model: GPT) -> list[Tensor]:
    """Of a text in documents of several lengths, some of it without targets."""
    T, V = model.config.block_size, model.config.vocab_size
    ids_BT = (torch.arange(3 * T) * 37 % V).view(3, T)
    targets_BT = (ids_BT * 5 + 1) % V
    targets_BT[0, ::5] = -1
    loss = model.loss(ids_BT, targets_BT, torch.arange(T).expand(3, T) // torch.tensor([[7], [30], [T]]))
    loss.backward()
    return [loss.detach(), *(each.grad.float() for each in model.parameters() if each.grad is not None)]


CODE = Code(
    name="kernels",
    folder=Path(__file__).parent,
    functions=(
        "mypt_attend_back",
        "mypt_norm_back",
        "mypt_drop",
        "mypt_has_pairs",
        "mypt_loss",
        "mypt_muon_move",
        "mypt_turn",
    ),
    require_agreement=_require_agreement,
    sizes=(f"-DROWS_AT_ONCE={ROWS_AT_ONCE}", f"-DNUMBERS_AT_ONCE={NUMBERS_AT_ONCE}"),
)
