"""A trained model ready to write: what `mypt.load` gives and `mypt generate` uses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mypt.core.checkpoint.snapshot import Snapshot, read_newest
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import Device, choose_device
from mypt.core.generate.stream import generate
from mypt.core.model.gpt import GPT
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.events import Event, Generated
from mypt.records.sampling import SamplingConfig


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights on a device, the tokenizer beside them."""

    snapshot: Snapshot
    model: GPT
    tokenizer: Tokenizer
    device: Device

    def stream(self, prompts: str | Sequence[str], config: SamplingConfig) -> Iterator[Event]:
        """Continue a prompt, or several, event by event."""
        texts = [prompts] if isinstance(prompts, str) else prompts
        return generate(self.model, self.tokenizer, texts, config, self.device)

    def generate(self, prompt: str = "", **settings: object) -> str:
        """Continue a prompt and give the new text of the first sample.

        Args:
            prompt: what to continue.
            settings: fields of SamplingConfig, such as max_new_tokens=50, temperature=0.

        Raises:
            UsageError: for settings that do not exist or are out of range.
        """
        config = SamplingConfig.parse(settings, where="generate")
        return next(event.text for event in self.stream(prompt, config) if isinstance(event, Generated))


def load_model(directory: ModelDirectory, device_name: str, warn: Callable[[str], None]) -> LoadedModel:
    """Load the newest whole state of a model.

    Raises:
        CheckpointError: when there is none.
        UsageError: for a device this machine does not have.
        DataError: when the tokenizer's table cannot be found.
    """
    device = choose_device(device_name, "fp32")
    snapshot, model = read_newest(directory, lambda newest: (newest, newest.load(device.torch)), warn)
    return LoadedModel(snapshot, model.eval(), build_tokenizer(snapshot.tokenizer), device)
