"""A model, its cache and room to work in, as the structs of read.c: their fields are in the same order there."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import Int8Matrix
from mypt.core.model.layers import Block, RotaryAttention, SwiGlu
from mypt.core.model.rotary import rotation_at
from mypt.records.model import ModelConfig

WHOLE_ROW = 64
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
_ACTIVATIONS = {"gelu": 0, "relu": 1, "swiglu": 2}
_CACHE_LINE = 64


class _Matrix(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("weight", "scale", "bias")),
        *((name, c_int64) for name in ("rows", "columns", "kind")),
    )


class _Norm(Structure):
    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("eps", c_float), ("has_mean", c_int32))


class _Layer(Structure):
    _fields_ = (
        *((name, _Norm) for name in ("attention_norm", "query_norm", "key_norm", "mlp_norm")),
        *((name, _Matrix) for name in ("query_key_value", "output", "gate", "up", "down")),
    )


class _Model(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("width", "heads", "kv_heads", "head_width", "layer_count", "activation")),
        *((name, _Matrix) for name in ("tokens", "positions", "head")),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("final_norm", _Norm),
        ("layers", POINTER(_Layer)),
    )


class _Cache(Structure):
    _fields_ = (("memory", c_void_p), ("rows", c_int64), ("positions", c_int64), ("kind", c_int64))


class _Work(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("stream", "normed", "heads", "mixed", "inner", "scores", "rounded")),
        ("is_finite", c_int32),
    )


class Layout:
    """The structs, and all that they point to."""

    def __init__(self, model: GPT, cache: KeyValueCache, tokens: int, threads: int) -> None:
        """Look at a model where it is.

        Args:
            model: whose weights are in fp32, bf16 or int8.
            cache: of the same model.
            tokens: how many are read in one call, at most.
            threads: how many read them.
        """
        self._kept: list[Tensor | NDArray[np.float32] | ctypes.Array[_Layer]] = [cache.memory]
        self.cache = _Cache(cache.memory.data_ptr(), len(cache.lengths), cache.positions, KINDS[cache.memory.dtype])
        self.model = self._model(model, cache.positions)
        self.work = self._work(model.config, tokens, threads, cache.positions)

    def _model(self, model: GPT, positions: int) -> _Model:
        config = model.config
        layers = (_Layer * config.n_layer)(*(self._layer(block) for block in model.blocks))
        self._kept.append(layers)
        head = model.token_embedding if model.head is None else model.head
        activation = _ACTIVATIONS[config.traits.activation]
        made = _Model(config.n_embd, config.n_head, config.kv_heads, config.head_width, config.n_layer, activation)
        made.tokens, made.positions, made.head = map(
            self._matrix, (model.token_embedding, model.position_embedding, head)
        )
        made.final_norm, made.layers = self._norm(model.final_norm), layers
        if config.traits.rotary:
            angles = rotation_at(torch.arange(positions, device="cpu"), config.head_width, config.rope_base)
            made.cosines, made.sines = self._numbers(angles.cos_T1P), self._numbers(angles.sin_T1P)
        return made

    def _layer(self, block: nn.Module) -> _Layer:
        assert isinstance(block, Block)
        attention, mlp = block.attention, block.mlp
        turned = isinstance(attention, RotaryAttention)
        query_norm, key_norm = (attention.query_norm, attention.key_norm) if turned else (None, None)
        gate = mlp.gate if isinstance(mlp, SwiGlu) else None
        norms = (block.attention_norm, query_norm, key_norm, block.mlp_norm)
        matrices = (attention.query_key_value, attention.output, gate, mlp.up, mlp.down)
        return _Layer(*map(self._norm, norms), *map(self._matrix, matrices))

    def _norm(self, norm: nn.LayerNorm | nn.RMSNorm | None) -> _Norm:
        if norm is None:
            return _Norm()
        has_mean = isinstance(norm, nn.LayerNorm)
        bias = self._numbers(norm.bias) if has_mean else None
        return _Norm(self._numbers(norm.weight), bias, norm.eps, has_mean)

    def _matrix(self, module: nn.Linear | nn.Embedding | Int8Matrix | None) -> _Matrix:
        if module is None:
            return _Matrix()
        weight = module.weight.detach().contiguous()
        self._kept.append(weight)
        scale, bias = (self._numbers(getattr(module, name, None)) for name in ("scale", "bias"))
        return _Matrix(weight.data_ptr(), scale, bias, *weight.shape, KINDS[weight.dtype])

    def _numbers(self, tensor: Tensor | None) -> int | None:
        """Where a copy of a few numbers is, in fp32 and up to a whole row."""
        if tensor is None:
            return None
        flat = tensor.detach().float().flatten()
        row = F.pad(flat, (0, whole_row(len(flat)) - len(flat)))
        self._kept.append(row)
        return row.data_ptr()

    def _work(self, config: ModelConfig, tokens: int, threads: int, positions: int) -> _Work:
        width, heads = config.n_embd, config.n_embd + 2 * config.kv_width
        by_token = [tokens * whole_row(row) for row in (width, width, heads, width, config.inner_width)]
        rounded = threads * tokens * whole_row(max(width, config.inner_width)) // np.dtype(np.float32).itemsize
        return _Work(*self._room([*by_token, threads * whole_row(positions), rounded]))

    def _room(self, sizes: Sequence[int]) -> list[int]:
        """Where there is room for so many zeros, each of them on cache lines of its own."""
        spare = _CACHE_LINE // np.dtype(np.float32).itemsize
        rooms = [np.zeros(size + spare, np.float32) for size in sizes]
        self._kept += rooms
        return [room.ctypes.data + -room.ctypes.data % _CACHE_LINE for room in rooms]


def whole_row(count: int) -> int:
    """Numbers in a row of activations for so many."""
    return -(-count // WHOLE_ROW) * WHOLE_ROW
