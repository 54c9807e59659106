"""ModelConfig: the architecture as a value, and its exact parameter count in closed form.

Letters: C width (n_embd), T context (block_size), V vocabulary (vocab_size), L layers (n_layer).
"""

from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mypt.records.base import Record

FamilyName = Literal["gpt2", "modern", "mypt-v1"]


class Family(NamedTuple):
    """What an architecture family fixes. Families are named sets, not free switches."""

    activation: Literal["gelu", "relu", "swiglu"]
    norm: Literal["layer", "rms"]
    rotary: bool
    """Queries and keys are normed head by head and turned by an angle for their position.
    Otherwise positions are learned and added to the token embedding."""
    tied_head: bool
    """The output head shares the token embedding's weights and has no bias."""
    always_biased: bool
    """Norms, projections and MLP have biases whatever `bias` says (then it rules q, k, v only)."""
    slides_by_one: bool
    """Past the window: keep the newest block_size tokens (exact, slow) or the newest half (fast)."""
    own_fields: frozenset[str]
    """The fields of ModelConfig that this family has beside the ones that all have."""


FAMILIES: dict[FamilyName, Family] = {
    # GPT-2 (Radford et al., 2019): learned positions, pre-norm LayerNorm, tanh GELU, tied head.
    "gpt2": Family(
        "gelu",
        "layer",
        rotary=False,
        tied_head=True,
        always_biased=False,
        slides_by_one=False,
        own_fields=frozenset({"bias"}),
    ),
    # Qwen3 (Yang et al., 2025): RMSNorm, rotary positions, normed queries and keys, heads that share
    # keys and values, SwiGLU, no biases. Its head may be tied; here it never is.
    "modern": Family(
        "swiglu",
        "rms",
        rotary=True,
        tied_head=False,
        always_biased=False,
        slides_by_one=False,
        own_fields=frozenset({"n_kv_head", "n_inner", "rope_base"}),
    ),
    # What the original MyPT trained: ReLU, untied head with bias, biases beside q, k, v.
    "mypt-v1": Family(
        "relu",
        "layer",
        rotary=False,
        tied_head=False,
        always_biased=True,
        slides_by_one=True,
        own_fields=frozenset({"bias"}),
    ),
}

_INNER_MULTIPLE = 64
"""Matrix products are fastest in multiples of this."""


def fields_of_others(family: FamilyName) -> frozenset[str]:
    """The fields of ModelConfig that some families have, and this one does not."""
    everyones = frozenset[str]().union(*(traits.own_fields for traits in FAMILIES.values()))
    return everyones - FAMILIES[family].own_fields


class ParameterCount(NamedTuple):
    """Exact parameters per part of the model."""

    token_embedding: int
    position_embedding: int
    attention: int
    mlp: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """All trainable parameters; a tied head counts once, in the token embedding."""
        return sum(self)


class ModelConfig(Record, frozen=True):
    """The architecture of one model. It never changes after training starts."""

    family: FamilyName = Field("gpt2", description="Architecture family.")
    n_layer: int = Field(12, ge=1, le=1000, description="Transformer blocks.")
    n_head: int = Field(6, ge=1, le=1000, description="Attention heads per block.")
    n_embd: int = Field(384, ge=1, le=65_536, description="Width of the residual stream.")
    block_size: int = Field(256, ge=2, le=1_048_576, description="Context window in tokens.")
    vocab_size: int = Field(50_304, ge=1, le=4_194_304, description="Rows of the embedding; set by the tokenizer.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout rate while training.")
    bias: bool = Field(default=False, description="Biases in linear layers and norms.")
    n_kv_head: int | None = Field(
        None, ge=1, le=1000, description="Heads of keys and values, shared by groups of heads; n_head if not set."
    )
    n_inner: int | None = Field(
        None, ge=1, le=1_048_576, description="Inner width of the SwiGLU MLP; about 8/3 of n_embd if not set."
    )
    rope_base: float = Field(
        10_000.0, ge=1, le=1e9, description="Base of the rotary angles; larger for contexts of many thousand tokens."
    )

    @model_validator(mode="after")
    def _fields_belong_to_the_family(self) -> Self:
        for name in sorted(fields_of_others(self.family)):
            if getattr(self, name) != type(self).model_fields[name].default:
                owners = ", ".join(family for family, traits in FAMILIES.items() if name in traits.own_fields)
                raise ValueError(f"family {self.family} has no {name} (families that have it: {owners})")
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        _require_divisor("n_head", self.n_head, "n_embd", self.n_embd)
        _require_divisor("n_kv_head", self.kv_heads, "n_head", self.n_head)
        if self.traits.rotary and self.head_width % 2:
            raise ValueError(
                f"n_embd = {self.n_embd} over n_head = {self.n_head} makes heads {self.head_width} wide "
                f"(allowed in family {self.family}: an even width, since positions turn pairs of numbers)"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_fields_of_others(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        others = fields_of_others(self.family)
        return {name: value for name, value in dump(self).items() if name not in others}

    @property
    def traits(self) -> Family:
        """What this model's family fixes."""
        return FAMILIES[self.family]

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; each serves n_head / kv_heads heads of queries."""
        return self.n_kv_head or self.n_head

    @property
    def kv_width(self) -> int:
        """Width of all keys, or all values, of one position."""
        return self.kv_heads * self.head_width

    @property
    def query_key_value_widths(self) -> list[int]:
        """Widths of all queries, keys and values of one position."""
        return [self.n_embd, self.kv_width, self.kv_width]

    @property
    def inner_width(self) -> int:
        """Width inside the MLP: four times the outer one; SwiGLU has three matrices and so two thirds of that."""
        if self.traits.activation != "swiglu":
            return 4 * self.n_embd
        nearest = round(self.n_embd * 8 / 3 / _INNER_MULTIPLE) * _INNER_MULTIPLE
        return self.n_inner or max(nearest, _INNER_MULTIPLE)

    @property
    def projection_bias(self) -> bool:
        """Whether attention output, MLP and norms have biases."""
        return self.bias or self.traits.always_biased

    @property
    def parameter_count(self) -> ParameterCount:
        """Exact parameters per part, from the shapes alone."""
        width, layers, inner, traits = self.n_embd, self.n_layer, self.inner_width, self.traits
        bias, projection_bias = int(self.bias), int(self.projection_bias)
        query_key_value = (width + bias) * (width + 2 * self.kv_width)
        attention_out = (width + projection_bias) * width
        mlp = (3 if traits.activation == "swiglu" else 2) * width * inner + projection_bias * (inner + width)
        head_norms = 2 * layers * self.head_width if traits.rotary else 0
        return ParameterCount(
            token_embedding=self.vocab_size * width,
            position_embedding=0 if traits.rotary else self.block_size * width,
            attention=layers * (query_key_value + attention_out),
            mlp=layers * mlp,
            norms=(2 * layers + 1) * (1 + projection_bias) * width + head_norms,
            head=0 if traits.tied_head else self.vocab_size * (width + traits.always_biased),
        )

    @property
    def parameters(self) -> int:
        """Exact number of trainable parameters."""
        return self.parameter_count.total

    def differences(self, other: "ModelConfig") -> dict[str, tuple[Any, Any]]:
        """Fields that differ, as {key: (mine, other's)}."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in type(self).model_fields}
        return {name: (mine, theirs) for name, (mine, theirs) in pairs.items() if mine != theirs}


def _require_divisor(name: str, value: int, whole_name: str, whole: int) -> None:
    """Refuse a number of heads that does not divide.

    Raises:
        ValueError: naming the nearest number that does.
    """
    if whole % value:
        near = [n for n in range(1, whole + 1) if whole % n == 0]
        best = min(near, key=lambda n: abs(n - value))
        raise ValueError(
            f"{whole_name} = {whole} is not divisible by {name} = {value} "
            f"(allowed: {name} that divides {whole_name}; nearest: {name} = {best})"
        )
