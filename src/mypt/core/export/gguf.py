"""A model as one GGUF file, which llama.cpp, Ollama, LM Studio and others run."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.export.layouts import GGUF_GPT2, GGUF_QWEN3, laid_out, norm_eps
from mypt.core.model.gpt import GPT
from mypt.core.tokens.exported import as_hugging_face
from mypt.core.tokens.patterns import GPT2_PATTERN, LLAMA3_PATTERN, O200K_PATTERN, QWEN2_PATTERN
from mypt.durable import sync_file
from mypt.errors import DataError
from mypt.records.hugging_face import BpeModel
from mypt.records.tokenizer import BpeSpec, CharSpec, TokenizerSpec

_PATTERNS = {GPT2_PATTERN: "gpt-2", LLAMA3_PATTERN: "llama-bpe", QWEN2_PATTERN: "qwen2", O200K_PATTERN: "gpt-4o"}
"""What llama.cpp calls the patterns that cut words, which are part of it."""
_TAKES_WHOLE_WORDS = "llama-bpe"
"""Under this name a word that is a piece is taken as it is."""
_IN_FP32 = ("position_embd.weight",)
"""llama.cpp has these, and whatever has one dimension, in fp32."""
_FILE_TYPES = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}
_ESCAPES = {"\0": "\\x00", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write_gguf(snapshot: Snapshot, model: GPT, path: Path) -> None:
    """Write a new file, to the disk.

    Args:
        snapshot: the facts of the model.
        model: its weights, in the type that they are to be stored in.
        path: where to.

    Raises:
        DataError: for a tokenizer that llama.cpp does not know.
        OSError: when the disk refuses.
    """
    import gguf

    is_modern = model.config.traits.rotary
    writer = gguf.GGUFWriter(path, "qwen3" if is_modern else "gpt2")
    writer.add_name(snapshot.name)
    _add_sizes(writer, model)
    _add_tokenizer(writer, snapshot.tokenizer)
    layout = GGUF_QWEN3 if is_modern else GGUF_GPT2
    for name, tensor in laid_out(model, layout, snapshot.tokenizer.vocab_size).items():
        numbers, kind = _numbers(name, tensor)
        writer.add_tensor(name, numbers, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[model.dtype]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sync_file(path)


def _add_sizes(writer: Any, model: GPT) -> None:  # noqa: ANN401 - an optional library's
    config = model.config
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.inner_width)
    writer.add_head_count(config.n_head)
    if not config.traits.rotary:
        writer.add_layer_norm_eps(norm_eps(model))
        return
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(norm_eps(model))
    writer.add_rope_freq_base(config.rope_base)


def _numbers(name: str, tensor: Tensor) -> tuple[NDArray[Any], str]:
    """A tensor's numbers, and what GGUF calls their type; numpy has no bf16, and takes it as bytes."""
    tensor = tensor.detach().contiguous()
    if tensor.dim() == 1 or name in _IN_FP32:
        return tensor.float().numpy(), "F32"
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint8).numpy(), "BF16"
    return tensor.numpy(), {torch.float32: "F32", torch.float16: "F16"}[tensor.dtype]


def _add_tokenizer(writer: Any, spec: TokenizerSpec) -> None:  # noqa: ANN401 - as above
    import gguf

    model = as_hugging_face(spec).model
    names = [f"[unused{token_id}]" for token_id in range(spec.vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * spec.vocab_size
    for name, token_id in model.vocab.items():
        names[token_id] = name
        kinds[token_id] = gguf.TokenType.CONTROL if name in spec.special_tokens else gguf.TokenType.NORMAL
    if isinstance(spec, CharSpec):
        # The only kind that takes the longest known piece of any bytes, and has no end unless it is told one.
        writer.add_tokenizer_model("rwkv")
        names = ["".join(_ESCAPES.get(char, char) for char in name) for name in names]
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pattern_name(spec, model))
        # llama.cpp wants a merge. One that makes no piece changes nothing.
        writer.add_token_merges([" ".join(pair) for pair in model.merges] or [f"{names[0]} {names[0]}"])
        end = _end_id(spec)
        writer.add_bos_token_id(end)
        writer.add_eos_token_id(end)
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(False)  # noqa: FBT003 - the library's


def _pattern_name(spec: TokenizerSpec, model: BpeModel) -> str:
    """What llama.cpp calls the pattern.

    Raises:
        DataError: when it has no name for it.
    """
    name = _PATTERNS.get(spec.pattern) if isinstance(spec, BpeSpec) else _PATTERNS[GPT2_PATTERN]
    if name is None or (model.ignore_merges and name != _TAKES_WHOLE_WORDS):
        raise DataError(
            "llama.cpp does not know how this tokenizer cuts text into words", hint="Export with --to hf instead."
        )
    return name


def _end_id(spec: TokenizerSpec) -> int:
    """The id of end-of-text, or of another special token, which no text ends with: llama.cpp wants one.

    Raises:
        DataError: when there is none.
    """
    name = spec.end_of_text or next(iter(spec.special_tokens), None)
    if name is None:
        raise DataError("llama.cpp needs a special token, and this tokenizer has none", hint="Export with --to hf.")
    return spec.special_tokens[name]
