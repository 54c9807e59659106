"""ModelConfig: the architecture as a value, and its exact parameter count in closed form.

Letters: C width (n_embd), T context (block_size), V vocabulary (vocab_size), L layers (n_layer).
"""

from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from mypt.records.base import Record

FamilyName = Literal["gpt2", "mypt-v1"]


class Family(NamedTuple):
    """What an architecture family fixes. Families are named sets, not free switches."""

    activation: Literal["gelu", "relu"]
    tied_head: bool
    """The output head shares the token embedding's weights and has no bias."""
    always_biased: bool
    """Norms, projections and MLP have biases whatever `bias` says (then it rules q, k, v only)."""
    slides_by_one: bool
    """Past the window: keep the newest block_size tokens (exact, slow) or the newest half (fast)."""


FAMILIES: dict[str, Family] = {
    # GPT-2 (Radford et al., 2019): learned positions, pre-norm LayerNorm, tanh GELU, tied head.
    "gpt2": Family("gelu", tied_head=True, always_biased=False, slides_by_one=False),
    # What the original MyPT trained: ReLU, untied head with bias, biases beside q, k, v.
    "mypt-v1": Family("relu", tied_head=False, always_biased=True, slides_by_one=True),
}


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

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.n_embd % self.n_head:
            near = [n for n in range(1, self.n_embd + 1) if self.n_embd % n == 0]
            best = min(near, key=lambda n: abs(n - self.n_head))
            msg = (
                f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head} "
                f"(allowed: n_head that divides n_embd; nearest: n_head = {best})"
            )
            raise ValueError(msg)
        return self

    @property
    def traits(self) -> Family:
        """What this model's family fixes."""
        return FAMILIES[self.family]

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def projection_bias(self) -> bool:
        """Whether attention output, MLP and norms have biases."""
        return self.bias or self.traits.always_biased

    @property
    def parameter_count(self) -> ParameterCount:
        """Exact parameters per part, from the shapes alone."""
        width, layers = self.n_embd, self.n_layer
        bias, projection_bias = int(self.bias), int(self.projection_bias)
        query_key_value = 3 * width * width + bias * 3 * width
        attention_out = width * width + projection_bias * width
        mlp = 8 * width * width + projection_bias * 5 * width
        return ParameterCount(
            token_embedding=self.vocab_size * width,
            position_embedding=self.block_size * width,
            attention=layers * (query_key_value + attention_out),
            mlp=layers * mlp,
            norms=(2 * layers + 1) * (1 + projection_bias) * width,
            head=0 if self.traits.tied_head else self.vocab_size * (width + 1),
        )

    @property
    def parameters(self) -> int:
        """Exact number of trainable parameters."""
        return self.parameter_count.total

    def differences(self, other: "ModelConfig") -> dict[str, tuple[Any, Any]]:
        """Fields that differ, as {key: (mine, other's)}."""
        mine, theirs = self.model_dump(), other.model_dump()
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}
