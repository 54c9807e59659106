"""SamplingConfig: how the next token is chosen and when a sample ends."""

from typing import Literal

from pydantic import Field

from mypt.records.base import Record

QA_PROMPT = "<Question> {prompt} </Question>\n<Answer> "
QA_STOP = "</Answer>"


class SamplingConfig(Record, frozen=True):
    """Settings of one generation. temperature = 0 is greedy: always the likeliest token."""

    max_new_tokens: int = Field(200, ge=1, le=10_000_000, description="Tokens to add at most.")
    temperature: float = Field(0.8, ge=0, le=100, description="0 is greedy; higher is wilder.")
    top_k: int | None = Field(None, ge=1, le=4_194_304, description="Sample among the k likeliest tokens.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Sample among the likeliest tokens that hold this probability."
    )
    seed: int = Field(1337, ge=0, lt=2**63, description="The same seed gives the same text.")
    num_samples: int = Field(1, ge=1, le=10_000, description="Samples to draw.")
    stop: tuple[str, ...] = Field((), description="Texts that end a sample; they are not part of it.")
    mode: Literal["basic", "qa"] = Field("basic", description="basic completes; qa asks and answers.")
    unknown: Literal["error", "skip"] = Field("error", description="What to do with unknown characters.")

    @property
    def stops(self) -> tuple[str, ...]:
        """All stop texts, the mode's own included."""
        return (*self.stop, QA_STOP) if self.mode == "qa" else self.stop

    def prompt_for(self, prompt: str) -> str:
        """The text the model sees for a user's prompt."""
        return QA_PROMPT.format(prompt=prompt) if self.mode == "qa" else prompt
