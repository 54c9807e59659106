"""What reads tokens in tests of generation."""

import pytest

from generating import CPU
from mypt.core.device import Device
from mypt.core.generate.compiled import choose_reader


@pytest.fixture(params=["model", "compiled"])
def device(request: pytest.FixtureRequest) -> Device:
    """A CPU whose tokens are read by the model, and one where compiled code does it."""
    if request.param == "model":
        return CPU
    chosen = choose_reader(CPU, "auto")
    if not chosen.compiled:
        pytest.skip("no compiled code on this machine")
    return chosen
