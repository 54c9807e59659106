"""The JSON files of a model as Hugging Face's transformers has them. Names and meanings are theirs.

What is written is read too: then other keys may stand beside these, and some are missing.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from mypt.errors import CheckpointError
from mypt.records.base import Record
from mypt.records.model import ModelConfig


class Gpt2Settings(Record, frozen=True, extra="ignore"):
    """config.json of a GPT-2."""

    file: ClassVar[str] = "config.json"

    model_type: Literal["gpt2"] = "gpt2"
    architectures: tuple[str, ...] | None = ("GPT2LMHeadModel",)
    dtype: str | None = "float32"
    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh"] = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    attn_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False
    quantization_config: None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    tie_word_embeddings: Literal[True] = True

    def model(self, where: str, *, bias: bool) -> ModelConfig:
        """The same architecture here.

        Args:
            where: what errors begin with.
            bias: whether any bias is not zero.

        Raises:
            CheckpointError: when there is none.
        """
        if self.n_inner not in {None, 4 * self.n_embd}:
            raise CheckpointError(f"{where}: n_inner = {self.n_inner} (allowed: {4 * self.n_embd}, four times n_embd)")
        sizes = {
            "n_layer": self.n_layer, "n_head": self.n_head, "n_embd": self.n_embd, "block_size": self.n_positions,
            "vocab_size": self.vocab_size, "dropout": self.resid_pdrop, "bias": bias,
        }  # fmt: skip
        return ModelConfig.parse(sizes, where=where, error=CheckpointError)

    @property
    def norm_eps(self) -> tuple[str, float]:
        """What its norms add to a variance, and the key for it."""
        return "layer_norm_epsilon", self.layer_norm_epsilon


class RopeSettings(Record, frozen=True, extra="ignore"):
    """How positions turn queries and keys."""

    rope_type: Literal["default"] = "default"
    rope_theta: float


class Qwen3Settings(Record, frozen=True, extra="ignore"):
    """config.json of a Qwen3."""

    file: ClassVar[str] = "config.json"

    model_type: Literal["qwen3"] = "qwen3"
    architectures: tuple[str, ...] | None = ("Qwen3ForCausalLM",)
    dtype: str | None = "float32"
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 128
    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: float = 1e-6
    attention_bias: Literal[False] = False
    attention_dropout: float = 0.0
    use_sliding_window: Literal[False] = False
    layer_types: tuple[Literal["full_attention"], ...] | None = None
    quantization_config: None = None
    rope_theta: float | None = Field(None, description="Where programs of before transformers 5 look for it.")
    rope_scaling: None = None
    rope_parameters: RopeSettings | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False

    def model(self, where: str, *, bias: bool) -> ModelConfig:
        """The same architecture here.

        Args:
            where: what errors begin with.
            bias: whether any bias is not zero; it has none.

        Raises:
            CheckpointError: when there is none.
        """
        if bias:
            raise CheckpointError(f"{where}: its weights have biases, which a {self.model_type} does not have")
        if self.head_dim * self.num_attention_heads != self.hidden_size:
            raise CheckpointError(
                f"{where}: head_dim = {self.head_dim} (allowed: hidden_size over num_attention_heads)"
            )
        sizes: dict[str, Any] = {
            "family": "modern", "n_layer": self.num_hidden_layers, "n_head": self.num_attention_heads,
            "n_embd": self.hidden_size, "block_size": self.max_position_embeddings, "vocab_size": self.vocab_size,
            "dropout": self.attention_dropout,
        }  # fmt: skip
        if self.num_key_value_heads != self.num_attention_heads:
            sizes["n_kv_head"] = self.num_key_value_heads
        base = self.rope_parameters.rope_theta if self.rope_parameters else self.rope_theta
        if base is not None:
            sizes["rope_base"] = base
        config = ModelConfig.parse(sizes, where=where, error=CheckpointError)
        if config.inner_width == self.intermediate_size:
            return config
        return ModelConfig.parse(sizes | {"n_inner": self.intermediate_size}, where=where, error=CheckpointError)

    @property
    def norm_eps(self) -> tuple[str, float]:
        """What its norms add to a variance, and the key for it."""
        return "rms_norm_eps", self.rms_norm_eps


ModelSettings = Gpt2Settings | Qwen3Settings


class _KindOnly(Record, frozen=True, extra="ignore"):
    model_type: Literal["gpt2", "qwen3"]


def read_model_settings(path: Path) -> ModelSettings:
    """Read config.json.

    Raises:
        CheckpointError: when it is missing, or of a model that has no counterpart here.
    """
    kind = _KindOnly.read(path, error=CheckpointError).model_type
    settings = {"gpt2": Gpt2Settings, "qwen3": Qwen3Settings}[kind]
    return settings.read(path, error=CheckpointError)


class WeightIndex(Record, frozen=True, extra="ignore"):
    """model.safetensors.index.json: which file has which tensor."""

    file: ClassVar[str] = "model.safetensors.index.json"

    weight_map: dict[str, str]


class GenerationSettings(Record, frozen=True):
    """generation_config.json: where a text begins and ends, and how it is drawn if nobody says it."""

    file: ClassVar[str] = "generation_config.json"

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    do_sample: bool = True
    temperature: float
    top_k: Literal[0] = Field(0, description="0: among all tokens.")


class TokenizerSettings(Record, frozen=True):
    """tokenizer_config.json."""

    file: ClassVar[str] = "tokenizer_config.json"

    tokenizer_class: Literal["PreTrainedTokenizerFast"] = "PreTrainedTokenizerFast"
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    model_max_length: int
    clean_up_tokenization_spaces: Literal[False] = False


class AddedToken(Record, frozen=True):
    """A special token: it has a name and never comes about by merging."""

    id: int
    content: str
    single_word: Literal[False] = False
    lstrip: Literal[False] = False
    rstrip: Literal[False] = False
    normalized: Literal[False] = False
    special: Literal[True] = True


class BpeModel(Record, frozen=True):
    """Pieces with their ids, and the pairs that are merged, in this order."""

    type: Literal["BPE"] = "BPE"
    dropout: None = None
    unk_token: None = None
    continuing_subword_prefix: None = None
    end_of_word_suffix: None = None
    fuse_unk: Literal[False] = False
    byte_fallback: Literal[False] = False
    ignore_merges: bool = Field(description="A word that is a piece is taken as it is, however it would be merged.")
    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]


class TokenizerFile(Record, frozen=True):
    """tokenizer.json."""

    file: ClassVar[str] = "tokenizer.json"

    version: Literal["1.0"] = "1.0"
    truncation: None = None
    padding: None = None
    added_tokens: tuple[AddedToken, ...]
    normalizer: None = None
    pre_tokenizer: dict[str, Any] | None
    post_processor: None = None
    decoder: dict[str, Any]
    model: BpeModel
