"""A model as one GGUF file, which llama.cpp, Ollama, LM Studio and others run."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.exchange.layouts import GGUF_GPT2, GGUF_QWEN3, Layout, laid_out, norm_eps
from mypt.core.model.gpt import GPT
from mypt.core.tokens.exported import as_hugging_face
from mypt.core.tokens.patterns import GPT2_PATTERN, LLAMA3_PATTERN, O200K_PATTERN, QWEN2_PATTERN
from mypt.durable import sync_file
from mypt.errors import DataError, MyptError
from mypt.records.hugging_face import BpeModel
from mypt.records.model import FamilyName
from mypt.records.tokenizer import BpeSpec, CharSpec, TokenizerSpec

_PATTERNS = {GPT2_PATTERN: "gpt-2", LLAMA3_PATTERN: "llama-bpe", QWEN2_PATTERN: "qwen2", O200K_PATTERN: "gpt-4o"}
"""What llama.cpp calls the patterns that cut words, which are part of it."""
_INSTEAD = "Export with --to hf instead."
_TAKES_WHOLE_WORDS = "llama-bpe"
"""Under this name a word that is a piece is taken as it is."""
_TYPES = {
    torch.float32: ("F32", "ALL_F32"),
    torch.float16: ("F16", "MOSTLY_F16"),
    torch.bfloat16: ("BF16", "MOSTLY_BF16"),
}
"""What GGUF calls the type of a tensor, and of a file."""
_ARCHITECTURES: dict[FamilyName, tuple[str, Layout]] = {"gpt2": ("gpt2", GGUF_GPT2), "modern": ("qwen3", GGUF_QWEN3)}
_ESCAPES = {"\0": "\\x00", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def write(snapshot: Snapshot, model: GPT, path: Path) -> None:
    """Write a new file, to the disk.

    Args:
        snapshot: the facts of the model.
        model: its weights, in the type that they are to be stored in.
        path: where to.

    Raises:
        DataError: for a tokenizer that llama.cpp does not know; nothing is written then.
        OSError: when the disk refuses.
    """
    import gguf

    architecture, layout = _ARCHITECTURES[model.config.family]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(snapshot.name)
    _add_sizes(writer, model)
    _add_tokenizer(writer, snapshot.tokenizer)
    for name, tensor in laid_out(model, layout, snapshot.tokenizer.vocab_size).items():
        numbers, kind = _numbers(name, tensor)
        writer.add_tensor(name, numbers, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_file_type(gguf.LlamaFileType[_TYPES[model.dtype][1]])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    sync_file(path)


def require_same_weights(path: Path, model: GPT, vocab_size: int) -> None:
    """Check that a file has a model's weights, bit for bit.

    Raises:
        MyptError: naming what is not the same.
    """
    import gguf

    wanted = laid_out(model, _ARCHITECTURES[model.config.family][1], vocab_size)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name in wanted.keys() | found.keys():
        numbers = _numbers(name, wanted[name])[0] if name in wanted else None
        if numbers is None or name not in found or found[name].data.tobytes() != numbers.tobytes():
            raise MyptError(f"{name}: not what was written")


def _add_sizes(writer: Any, model: GPT) -> None:  # noqa: ANN401 - an optional library's
    config = model.config
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.inner_width)
    writer.add_head_count(config.n_head)
    if config.family == "gpt2":
        writer.add_layer_norm_eps(norm_eps(model))
        return
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(norm_eps(model))
    writer.add_rope_freq_base(config.rope_base)


def _numbers(name: str, tensor: Tensor) -> tuple[NDArray[Any], str]:
    """A tensor's numbers, and what GGUF calls their type; numpy has no bf16, and takes it as bytes."""
    if tensor.dim() == 1 or name == "position_embd.weight":  # llama.cpp has these in fp32
        return tensor.float().numpy(), "F32"
    numbers = tensor.view(torch.uint8) if tensor.dtype == torch.bfloat16 else tensor
    return numbers.numpy(), _TYPES[tensor.dtype][0]


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
        end = _end_id(spec)
        # llama.cpp wants a merge. No word has the name of a special token as a part, so this one never happens.
        writer.add_token_merges([" ".join(pair) for pair in model.merges] or [f"{names[end]} {names[end]}"])
        writer.add_bos_token_id(end)
        writer.add_eos_token_id(end)
    if len(set(names)) < len(names):
        raise DataError("llama.cpp tells tokens apart by their names, and two of these have one", hint=_INSTEAD)
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_add_bos_token(False)  # noqa: FBT003 - the library's


def _pattern_name(spec: TokenizerSpec, model: BpeModel) -> str:
    """What llama.cpp calls the pattern.

    Raises:
        DataError: when it has no name for it, or would not find all pieces.
    """
    name = _PATTERNS.get(spec.pattern) if isinstance(spec, BpeSpec) else _PATTERNS[GPT2_PATTERN]
    if name is None:
        raise DataError("llama.cpp does not know how this tokenizer cuts text into words", hint=_INSTEAD)
    if model.ignore_merges and name != _TAKES_WHOLE_WORDS:
        raise DataError("this tokenizer has pieces that no merge makes, which llama.cpp would not find", hint=_INSTEAD)
    return name


def _end_id(spec: TokenizerSpec) -> int:
    """The id of end-of-text, or of another special token: told of none, llama.cpp takes the token 11 for the end.

    Raises:
        DataError: when there is none.
    """
    name = spec.end_of_text or next(iter(spec.special_tokens), None)
    if name is None:
        raise DataError("llama.cpp needs a special token, and this tokenizer has none", hint=_INSTEAD)
    return spec.special_tokens[name]
