"""MyPT: train GPT models of any size on text of any size.

The public face is small: `train`, `evaluate`, `export`, `load`, `GPT`, `ModelConfig`. Nothing heavy is imported
until one of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypt.api import evaluate, export, load, train
    from mypt.core.model.gpt import GPT
    from mypt.records.model import ModelConfig

__version__ = "0.1.0"
__all__ = ["GPT", "ModelConfig", "__version__", "evaluate", "export", "load", "train"]

_HOMES = {
    "GPT": "mypt.core.model.gpt",
    "ModelConfig": "mypt.records.model",
    "evaluate": "mypt.api",
    "export": "mypt.api",
    "load": "mypt.api",
    "train": "mypt.api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute can be anything
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mypt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
