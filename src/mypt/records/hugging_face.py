"""The JSON files of a model as Hugging Face's transformers reads them. Names and meanings are theirs."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from mypt.records.base import Record


class Gpt2Settings(Record, frozen=True):
    """config.json of a GPT-2."""

    file: ClassVar[str] = "config.json"

    model_type: Literal["gpt2"] = "gpt2"
    architectures: tuple[Literal["GPT2LMHeadModel"]] = ("GPT2LMHeadModel",)
    dtype: str
    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    activation_function: Literal["gelu_new"] = "gelu_new"
    layer_norm_epsilon: float
    attn_pdrop: float
    embd_pdrop: float
    resid_pdrop: float
    bos_token_id: int | None
    eos_token_id: int | None
    tie_word_embeddings: Literal[True] = True


class RopeSettings(Record, frozen=True):
    """How positions turn queries and keys."""

    rope_type: Literal["default"] = "default"
    rope_theta: float


class Qwen3Settings(Record, frozen=True):
    """config.json of a Qwen3."""

    file: ClassVar[str] = "config.json"

    model_type: Literal["qwen3"] = "qwen3"
    architectures: tuple[Literal["Qwen3ForCausalLM"]] = ("Qwen3ForCausalLM",)
    dtype: str
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: float
    attention_bias: Literal[False] = False
    attention_dropout: float
    rope_theta: float = Field(description="Where programs of before transformers 5 look for it.")
    rope_parameters: RopeSettings
    bos_token_id: int | None
    eos_token_id: int | None
    tie_word_embeddings: Literal[False] = False


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
