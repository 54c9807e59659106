"""A model as a folder that Hugging Face's transformers loads; its programs, and vLLM, MLX and others, read the same."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mypt import __version__
from mypt.core.checkpoint.snapshot import Snapshot
from mypt.core.checkpoint.tensors import TensorFile
from mypt.core.exchange.layouts import HF_GPT2, HF_QWEN3, Layout, laid_out, norm_eps
from mypt.core.model.gpt import GPT
from mypt.core.tokens.exported import as_hugging_face
from mypt.durable import write_new
from mypt.errors import MyptError
from mypt.records.hugging_face import (
    GenerationSettings,
    Gpt2Settings,
    Qwen3Settings,
    RopeSettings,
    TokenizerSettings,
)
from mypt.records.model import FamilyName
from mypt.records.sampling import SamplingConfig
from mypt.units import human_count, several

WEIGHTS = "model.safetensors"
LAYOUTS: dict[FamilyName, Layout] = {"gpt2": HF_GPT2, "modern": HF_QWEN3}
_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A language model of {parameters} parameters in the architecture of {architecture}: {layers}, {heads} each, width
{width:,}, a context of {context:,} tokens, a vocabulary of {ids:,}.

Trained by MyPT {version} for {steps}{loss}.

```python
from transformers import pipeline

write = pipeline("text-generation", model=".")  # or the name under which this folder was published
print(write("Once", max_new_tokens={new})[0]["generated_text"])
```
"""


def write(snapshot: Snapshot, model: GPT, folder: Path) -> None:
    """Make a new folder, file by file to the disk.

    Args:
        snapshot: the facts of the model.
        model: its weights, in the type that they are to be stored in.
        folder: where to.

    Raises:
        DataError: for a tokenizer that cannot be written so; nothing is written then.
        OSError: when the disk refuses.
    """
    spec = snapshot.tokenizer
    end = spec.end_of_text
    end_id = None if end is None else spec.special_tokens[end]
    records = (
        _settings(model, spec.vocab_size, end_id),
        GenerationSettings(
            bos_token_id=end_id, eos_token_id=end_id, pad_token_id=end_id, temperature=SamplingConfig().temperature
        ),
        TokenizerSettings(bos_token=end, eos_token=end, pad_token=end, model_max_length=model.config.block_size),
        as_hugging_face(spec),
    )
    folder.mkdir()
    for record in records:
        write_new(folder / record.file, [record.as_file().encode()])
    write_new(folder / "README.md", [_card(snapshot).encode()])
    write_new(folder / WEIGHTS, TensorFile(_tensors(model, spec.vocab_size)).chunks())


def require_same_weights(folder: Path, model: GPT, vocab_size: int) -> None:
    """Check that a folder has a model's weights, bit for bit.

    Raises:
        MyptError: naming what is not the same.
    """
    wanted = _tensors(model, vocab_size)
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            for name in wanted.keys() | set(file.keys()):
                if name not in wanted or not torch.equal(file.get_tensor(name), wanted[name]):
                    raise MyptError(f"{name}: not what was written")
    except SafetensorError as problem:
        raise MyptError(f"{WEIGHTS}: not what was written ({problem})") from None


def _tensors(model: GPT, vocab_size: int) -> dict[str, Tensor]:
    return laid_out(model, LAYOUTS[model.config.family], vocab_size)


def _settings(model: GPT, vocab_size: int, end_id: int | None) -> Gpt2Settings | Qwen3Settings:
    config, dtype = model.config, str(model.dtype).removeprefix("torch.")
    if config.family == "gpt2":
        return Gpt2Settings(
            dtype=dtype,
            vocab_size=vocab_size,
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
        vocab_size=vocab_size,
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


def _card(snapshot: Snapshot) -> str:
    """What a reader of the folder should know first."""
    config, training = snapshot.config, snapshot.training
    loss = "" if training.val_loss is None else f", to a validation loss of {training.val_loss:.4f} nats per token"
    return _CARD.format(
        name=snapshot.name,
        parameters=human_count(config.parameters),
        architecture="GPT-2" if config.family == "gpt2" else "Qwen3",
        layers=several(config.n_layer, "layer"),
        heads=several(config.n_head, "head"),
        width=config.n_embd,
        context=config.block_size,
        ids=snapshot.tokenizer.vocab_size,
        version=__version__,
        steps=several(training.step, "step"),
        loss=loss,
        new=min(100, config.block_size // 2),
    )
