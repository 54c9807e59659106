"""Whether there is room for what is to be measured: a machine that is made to swap would measure its disk."""

from mypt.core.device import Device
from mypt.core.limits import free_memory_bytes
from mypt.core.train.memory import device_limit_bytes
from mypt.errors import MemoryShortageError
from mypt.units import human_bytes


def require_room(needed_bytes: int, device: Device) -> None:
    """Refuse what is larger than the device, or than what others leave of it.

    Raises:
        MemoryShortageError: with both sizes.
    """
    known = [device_limit_bytes(device), free_memory_bytes() if device.kind == "cpu" else None]
    there = min((limit for limit in known if limit is not None), default=needed_bytes)
    if needed_bytes > there:
        raise MemoryShortageError(
            f"needs {human_bytes(needed_bytes)} by the estimate, {human_bytes(there)} are free",
        )
