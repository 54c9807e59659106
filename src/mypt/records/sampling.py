"""SamplingConfig: how the next token is chosen and when a sample ends."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mypt.records.base import Record
from mypt.records.run import Compile

QA_PROMPT = "<Question> {prompt} </Question>\n<Answer> "
QA_STOP = "</Answer>"
CHAT_STOP = "\n\n"
MESSAGE = "{message}"

_OF_CHANCE = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")


class LoadingConfig(Record, frozen=True):
    """How a trained model is brought into memory."""

    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32",
        description="fp32; bf16 or fp16: half of the memory, maybe other texts; auto: what this machine has.",
    )
    quantize: Literal["none", "int8"] = Field(
        "none", description="int8: weights in 8 bits, a quarter of the memory, and up to four times as fast on CPUs."
    )
    compile: Compile = Field(
        "auto",
        description="Read tokens by compiled code, on CUDA by recorded steps: on, off, or auto: code on CPUs that can.",
    )

    @model_validator(mode="after")
    def _int8_has_a_precision_of_its_own(self) -> Self:
        if self.quantize == "int8" and self.precision not in {"fp32", "auto"}:
            raise ValueError(f"precision = {self.precision} with weights in int8 (allowed: fp32 or auto, for the rest)")
        return self


class SamplingConfig(Record, frozen=True):
    """Settings of one generation. temperature = 0 is greedy: always the likeliest token."""

    max_new_tokens: int = Field(200, ge=1, le=10_000_000, description="Tokens to add at most.")
    temperature: float = Field(0.8, ge=0, le=100, description="0 is greedy; higher is wilder.")
    top_k: int | None = Field(None, ge=1, le=4_194_304, description="Sample among the k likeliest tokens.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Sample among the likeliest tokens that hold this probability."
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="Sample among tokens at least this share as likely as the likeliest one."
    )
    typical_p: float | None = Field(
        None, gt=0, le=1, description="Sample among the most typical tokens that hold this probability."
    )
    repetition_penalty: float = Field(
        1.0, ge=0.01, le=100, description="Make tokens of the prompt and the new text less likely: above 1."
    )
    frequency_penalty: float = Field(
        0.0, ge=-100, le=100, description="Subtract this from a token's score for each time it was written."
    )
    presence_penalty: float = Field(
        0.0, ge=-100, le=100, description="Subtract this from the score of every token that was written."
    )
    no_repeat_ngram: int | None = Field(
        None, ge=1, le=1000, description="Never write this many tokens in a row a second time."
    )
    beams: int = Field(1, ge=1, le=1000, description="Beam search with this many beams; 1 is none.")
    length_penalty: float = Field(
        1.0, ge=-10, le=10, description="Beam search prefers longer texts the higher this is; 0: plain sum."
    )
    logprobs: int | None = Field(
        None, ge=0, le=1000, description="Give each token's log-probability, and those of this many likeliest tokens."
    )
    seed: int = Field(1337, ge=0, lt=2**63, description="The same seed gives the same text.")
    num_samples: int = Field(1, ge=1, le=10_000, description="Samples to draw.")
    batch_size: int = Field(16, ge=1, le=10_000, description="Samples written at once; beams always are.")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Texts that end a sample; they are not part of it."
    )
    mode: Literal["basic", "qa", "chat"] = Field(
        "basic", description="basic completes; qa asks and answers; chat does so in turns."
    )
    turn: str = Field("{message}\n", description="What chat makes of a message, {message}, before the model goes on.")
    unknown: Literal["error", "skip"] = Field("error", description="What to do with unknown characters.")

    @model_validator(mode="after")
    def _beams_leave_nothing_to_chance(self) -> Self:
        if self.beams == 1:
            if self.differs("length_penalty"):
                raise ValueError("length_penalty is a setting of beam search (allowed: with beams above 1)")
            return self
        chance = [name for name in _OF_CHANCE if self.differs(name)]
        if chance:
            raise ValueError(f"beam search leaves nothing to chance, {chance[0]} means nothing (allowed: without it)")
        if self.num_samples > self.beams:
            raise ValueError(f"num_samples = {self.num_samples} of {self.beams} beams (allowed: at most all of them)")
        if self.logprobs:
            raise ValueError("beam search knows no alternatives of a token (allowed: logprobs = 0)")
        return self

    @model_validator(mode="after")
    def _chat_is_one_text(self) -> Self:
        if self.mode == "chat" and self.num_samples > 1:
            raise ValueError("a chat goes on from one answer (allowed: num_samples = 1)")
        if self.mode != "chat" and self.differs("turn"):
            raise ValueError("turn is a setting of a chat (allowed: in mode chat)")
        if MESSAGE not in self.turn:
            raise ValueError(f"turn has no place for what is said (allowed: texts with {MESSAGE})")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """All stop texts, the mode's own included: a turn ends at a blank line, if nothing else was said."""
        if self.mode == "qa":
            return (*self.stop, QA_STOP)
        return self.stop or (CHAT_STOP,) if self.mode == "chat" else self.stop

    def texts_at_once(self, prompts: int) -> int:
        """How many texts are written side by side for so many prompts."""
        return self.beams if self.beams > 1 else min(self.batch_size, prompts * self.num_samples)

    def prompt_for(self, prompt: str) -> str:
        """The text the model sees for a user's prompt."""
        return QA_PROMPT.format(prompt=prompt) if self.mode == "qa" else prompt

    def differs(self, name: str) -> bool:
        """Whether a setting is another than the default."""
        return getattr(self, name) != type(self).model_fields[name].default
