"""DataConfig -> Corpus: datasets opened, or text encoded into memory."""

from collections.abc import Generator

from mypt.core.data.memory import read_into_memory
from mypt.core.data.opened import open_datasets
from mypt.core.data.splits import Corpus
from mypt.core.data.text.sources import require_text
from mypt.events import Event
from mypt.records.run import DataConfig
from mypt.records.text import Unknown
from mypt.records.tokenizer import TokenizerSpec


def read_corpus(
    config: DataConfig, spec: TokenizerSpec | None = None, *, unknown: Unknown | None = None
) -> Generator[Event, None, Corpus]:
    """Open datasets, or read and encode text files into memory, telling progress.

    Args:
        config: the source.
        spec: the tokenizer of an existing model; a new one is made where it is None.
        unknown: what is done with characters of text that it does not know; None where nothing can be done.

    Raises:
        UsageError: when no source is given.
        DataError: when the text or dataset is unfit or belongs to another tokenizer.
    """
    if config.dataset_dir:
        return (yield from open_datasets(config.dataset_dir, spec))
    require_text(config)
    return (yield from read_into_memory(config, spec, unknown))
