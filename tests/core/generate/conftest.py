"""What reads tokens in tests of generation."""

import pytest
import torch

from generating import CPU
from mypt.core.device import Device
from mypt.core.generate import decoder
from mypt.core.generate.compiled import choose_reader
from mypt.core.generate.reader import Reader
from mypt.core.generate.recorded import RecordedReader
from mypt.core.model.cache import KeyValueCache
from mypt.core.model.gpt import GPT


@pytest.fixture(params=["model", "compiled", "recorded"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A CPU whose tokens are read by the model, by compiled code, or by what is recorded on GPUs."""
    if request.param == "recorded":
        monkeypatch.setattr(decoder, "open_reader", recorded)
    if request.param != "compiled":
        return CPU
    chosen = choose_reader(CPU, "auto")
    if not chosen.compiled:
        pytest.skip("no compiled code on this machine")
    return chosen


def recorded(model: GPT, cache: KeyValueCache, device: Device) -> Reader:
    """Work that a GPU would record: a CPU does it anew each time."""
    with torch.inference_mode():
        cache.memory.zero_()  # as it is on GPUs: what is hidden is multiplied by nothing, and so must be a number
    return RecordedReader(model, cache, device.torch)
