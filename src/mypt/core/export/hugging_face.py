"""A model as a folder that Hugging Face's transformers loads; its programs, and vLLM, MLX and others, read the same."""

from pathlib import Path

from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.checkpoint.tensors import TensorFile
from mypt.core.export.layouts import HF_GPT2, HF_QWEN3, laid_out, norm_eps
from mypt.core.model.gpt import GPT
from mypt.core.tokens.exported import as_hugging_face
from mypt.durable import write_new
from mypt.records.hugging_face import (
    GenerationSettings,
    Gpt2Settings,
    Qwen3Settings,
    RopeSettings,
    TokenizerSettings,
)

_WEIGHTS = "model.safetensors"


def write_hugging_face(snapshot: Snapshot, model: GPT, folder: Path) -> None:
    """Make a new folder, file by file to the disk.

    Args:
        snapshot: the facts of the model.
        model: its weights, in the type that they are to be stored in.
        folder: where to.

    Raises:
        OSError: when the disk refuses.
    """
    folder.mkdir()
    spec = snapshot.tokenizer
    end = spec.end_of_text
    end_id = None if end is None else spec.special_tokens[end]
    records = (
        _settings(model, spec.vocab_size, end_id),
        GenerationSettings(bos_token_id=end_id, eos_token_id=end_id),
        TokenizerSettings(bos_token=end, eos_token=end, model_max_length=model.config.block_size),
        as_hugging_face(spec),
    )
    for record in records:
        write_new(folder / record.file, [record.as_file().encode()])
    layout = HF_QWEN3 if model.config.traits.rotary else HF_GPT2
    tensors = {name: tensor.contiguous() for name, tensor in laid_out(model, layout, spec.vocab_size).items()}
    write_new(folder / _WEIGHTS, TensorFile(tensors).chunks())


def _settings(model: GPT, ids: int, end_id: int | None) -> Gpt2Settings | Qwen3Settings:
    config, dtype = model.config, str(model.dtype).removeprefix("torch.")
    if not config.traits.rotary:
        return Gpt2Settings(
            dtype=dtype,
            vocab_size=ids,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            layer_norm_epsilon=norm_eps(model),
            attn_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            bos_token_id=end_id,
            eos_token_id=end_id,
        )
    return Qwen3Settings(
        dtype=dtype,
        vocab_size=ids,
        max_position_embeddings=config.block_size,
        hidden_size=config.n_embd,
        intermediate_size=config.inner_width,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_width,
        rms_norm_eps=norm_eps(model),
        attention_dropout=config.dropout,
        rope_theta=config.rope_base,
        rope_parameters=RopeSettings(rope_theta=config.rope_base),
        bos_token_id=end_id,
        eos_token_id=end_id,
    )
