"""A trained model ready to write: what `mypt.load` gives and `mypt generate` uses."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mypt.core.checkpoint.snapshot import Snapshot, read_newest
from mypt.core.checkpoint.store import ModelDirectory
from mypt.core.device import NARROW, Device, Precision, choose_device, computes_bf16, shortage_told
from mypt.core.generate.compiled import choose_reader
from mypt.core.generate.stream import generate
from mypt.core.heap import keep_freed_memory
from mypt.core.model.gpt import GPT
from mypt.core.model.int8 import is_int8, quantize
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import MemoryShortageError, UsageError
from mypt.events import Event, Generated
from mypt.records.run import Compile
from mypt.records.sampling import SamplingConfig
from mypt.units import several


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights on a device, the tokenizer beside them."""

    snapshot: Snapshot
    model: GPT
    tokenizer: Tokenizer
    device: Device

    @property
    def label(self) -> str:
        """The device and how it computes: 'cpu (2 threads), fp32, compiled'."""
        kind = "int8" if is_int8(self.model) else self.device.precision
        how = ", recorded" if self.device.kind == "cuda" else ", compiled"
        return f"{self.device.label}, {kind}{how * self.device.compiled}"

    def stream(self, prompts: str | Sequence[str], config: SamplingConfig) -> Generator[Event]:
        """Continue a prompt, or several, event by event."""
        texts = [prompts] if isinstance(prompts, str) else prompts
        with shortage_told(lambda: self._shortage(config, len(texts))):
            yield from generate(self.model, self.tokenizer, texts, config, self.device)

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

    def _shortage(self, config: SamplingConfig, prompts: int) -> MemoryShortageError:
        """What to say of texts that do not fit."""
        texts, block_size = config.texts_at_once(prompts), self.model.config.block_size
        option = "--beams" if config.beams > 1 else "--batch-size"
        return MemoryShortageError(
            f"out of memory: {self.snapshot.name}, {several(texts, 'text')} of up to {block_size:,} tokens at a time",
            hint=f"{option} {texts // 2} takes less." if texts > 1 else "Use a machine with more memory.",
        )


def load_model(
    directory: ModelDirectory,
    device_name: str,
    warn: Callable[[str], None],
    *,
    precision: Precision | Literal["auto"] = "fp32",
    int8: bool = False,
    compiled: Compile = "auto",
) -> LoadedModel:
    """Load the newest whole state of a model.

    Args:
        directory: the model.
        device_name: as of `choose_device`.
        warn: told about states that are broken.
        precision: of weights, activations and cache; fp32 where weights are in int8. 'auto' is what the device has
            instructions for, bf16 before fp16.
        int8: round the weights to 8 bits, if they are not yet.
        compiled: whether tokens are read by compiled code; 'auto' is where this machine can make it.

    Raises:
        CheckpointError: when there is none.
        UsageError: for a device this machine does not have, a precision that int8 does not go with, or code that it
            cannot compile.
        DataError: when the tokenizer's table cannot be found.
        MemoryShortageError: when the weights do not fit.
    """
    device = choose_device(device_name, precision)
    if precision == "auto" and device.kind == "cpu" and computes_bf16(device.torch):
        device = replace(device, precision="bf16")
    if device.kind == "cpu":
        keep_freed_memory()
    with shortage_told(lambda: _no_room(directory.name, device)):
        snapshot, model = read_newest(directory, lambda newest: (newest, newest.load(device.torch)), warn)
        if int8 or is_int8(model):
            if precision not in {"fp32", "auto"}:
                raise UsageError(f"precision {precision}: not with weights in int8", hint="Leave --precision out.")
            device = replace(device, precision="fp32")
        if int8 and not is_int8(model):
            quantize(model)
        elif device.precision != "fp32":
            model.to(NARROW[device.precision])
    return LoadedModel(snapshot, model, build_tokenizer(snapshot.tokenizer), choose_reader(device, compiled))


def _no_room(name: str, device: Device) -> MemoryShortageError:
    """What to say of weights that do not fit."""
    hint = "Stored in int8 (mypt quantize) weights take a quarter of fp32."
    return MemoryShortageError(f"out of memory: the weights of {name} do not fit {device.label}", hint=hint)
