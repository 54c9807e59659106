"""Corpus: what training reads. Both splits as streams of tokens, and the tokenizer that made them."""

from dataclasses import dataclass
from functools import cached_property

from mypt.core.data.stream import TokenStream
from mypt.core.tokens.base import Tokenizer
from mypt.core.tokens.build import build_tokenizer
from mypt.errors import DataError
from mypt.records.tokenizer import TokenizerSpec

_NAMED_FILES = 3
_SHORTEST_BLOCK = 2


@dataclass(frozen=True)
class Corpus:
    """What training reads."""

    spec: TokenizerSpec
    """The tokenizer that made the tokens, as a record."""
    train: TokenStream
    val: TokenStream
    fingerprint: str
    """Equal fingerprints mean equal tokens in equal order."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself; a table of its own takes a third of a second to load."""
        return build_tokenizer(self.spec)

    def require_blocks(self, block_size: int) -> None:
        """Refuse splits that do not hold one window of block_size + 1 tokens.

        Raises:
            DataError: with the sizes and how to fix it.
        """
        need = block_size + 1
        for stream in (self.train, self.val):
            if len(stream.sources) > 1:
                _require_sources(stream, need)
        if len(self.train) < need:
            message = f"the training text has {len(self.train):,} tokens, one block needs {need:,}"
            fix = (len(self.train) - 1) // 2
            shorter = f", or a shorter context: --block-size {fix}" if fix >= _SHORTEST_BLOCK else ""
            raise DataError(message, hint=f"Use more text{shorter}")
        if 0 < len(self.val) < need:
            message = f"the validation split has {len(self.val):,} tokens, one block needs {need:,}"
            total = len(self.train) + len(self.val)
            fraction = need / total * 1.1
            wider = f"--val-fraction {fraction:.2g}, " if fraction < 0.5 else ""  # noqa: PLR2004 - half is too much
            raise DataError(
                message,
                hint=f"Use more text, {wider}a shorter context (--block-size {max(2, len(self.val) - 1)}), "
                "or no validation: --val-fraction 0",
            )

    def change_note(self) -> str:
        """Say which files are no longer what they were when training began; nothing where all are.

        Cheap enough for every save, and each change is told once. Text in memory cannot change.
        """
        names = [*self.train.changed(), *self.val.changed()]
        if not names:
            return ""
        told = ", ".join(names[:_NAMED_FILES])
        more = f" and {len(names) - _NAMED_FILES:,} more" if len(names) > _NAMED_FILES else ""
        return f"changed while it is trained on: {told}{more}; from here on the run cannot be repeated with this text"

    def require_documents(self) -> None:
        """Make sure that documents can be kept apart.

        Raises:
            DataError: naming the first shard that does not tell where its documents end.
        """
        for stream in (self.train, self.val):
            stream.require_documents()


def _require_sources(stream: TokenStream, need: int) -> None:
    for source in stream.sources:
        if source.tokens < need:
            raise DataError(
                f"{source.name}: a split of it has {source.tokens:,} tokens, one block needs {need:,}",
                hint=f"Leave it out of the mixture, or use a shorter context: --block-size {max(2, source.tokens - 1)}",
            )
