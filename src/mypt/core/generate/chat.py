"""A conversation: one text that grows by what is said and by what the model makes of it."""

import json
from collections.abc import Generator
from contextlib import closing

from mypt.core.generate.loaded import LoadedModel
from mypt.core.generate.prompt import encode_prompt
from mypt.core.tokens.base import decode
from mypt.errors import MyptError, UsageError
from mypt.events import Event, Generated, Token, Warned
from mypt.records.sampling import MESSAGE, SamplingConfig


class Conversation:
    """What was said so far, and the settings of the next answer."""

    def __init__(self, loaded: LoadedModel, config: SamplingConfig, beginning: str = "") -> None:
        """Begin with a text, if there is one.

        Raises:
            DataError: when it has characters that the model does not know.
        """
        encode_prompt(loaded.tokenizer, beginning, config)
        self.config = config
        self.history = beginning
        self._loaded = loaded
        self._beginning = beginning
        self._told_of_cut = False

    def say(self, message: str) -> Generator[Event]:
        """Add a message and the model's answer, event by event. Closed early, it keeps what was written.

        Raises:
            DataError: for unknown characters; then nothing was said.
        """
        before = self.history
        self.history += self.config.turn.replace(MESSAGE, message)
        end = "\n"  # of an answer that is stopped
        try:
            with closing(self._loaded.stream(self.history, self.config)) as events:
                for event in events:
                    if isinstance(event, Token):
                        self.history += event.text
                    elif isinstance(event, Generated):
                        end = self._end_of(event)
                    if isinstance(event, Warned):
                        if self._told_of_cut:
                            continue
                        self._told_of_cut = True
                    yield event
        except MyptError:
            self.history, end = before, ""
            raise
        finally:
            self.history += end

    def reset(self) -> None:
        """Forget all that was said."""
        self.history, self._told_of_cut = self._beginning, False

    def set(self, name: str, value: str) -> None:
        """Change a setting of the answers that follow.

        Raises:
            UsageError: for one that does not exist, or a value that is not allowed; then nothing changes.
        """
        changed = self.config.model_dump(mode="json") | {name.replace("-", "_"): _value(value)}
        config = SamplingConfig.parse(changed, where="/set")
        if config.mode != "chat":
            raise UsageError("/set: mode: this is a chat", hint="Leave it with /quit.")
        self.config = config

    def _end_of(self, answer: Generated) -> str:
        """The stop text that ended an answer belongs to the history; one that was cut off ends its line."""
        whole = decode(self._loaded.tokenizer, list(answer.token_ids))
        rest = whole[len(answer.text) :]
        return next((stop for stop in self.config.stops if rest.startswith(stop)), "\n")


def _value(text: str) -> object:
    """A number, a list or null as JSON has them; else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
