"""Options of mypt train that say in tokens or in time what its config says in steps and sequences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mypt.cli.options import LENGTH_DECIDES, MEMORY_DECIDES

if TYPE_CHECKING:
    from mypt.records.length import Length
    from mypt.records.resolve import Layer, Resolved

_GIVEN = {"environment", "flag", "--set"}


def length(until_tokens: str | None, duration: str | None, resolved: "Resolved") -> "Length | None":
    """How long to train where it is not said in steps; only one of the three ways can be meant."""
    from mypt.errors import UsageError
    from mypt.records.length import Length

    if until_tokens is None and duration is None:
        return None
    is_given = resolved.sources["training.max_iters"] in _GIVEN
    if is_given or (until_tokens is not None and duration is not None):
        raise UsageError("--max-iters, --until-tokens and --for each say how long to train: give one of them")
    resolved.sources["training.max_iters"] = LENGTH_DECIDES
    return Length.until_tokens(until_tokens) if until_tokens is not None else Length.lasting(duration or "")


def with_global_batch(tokens: str, resolved: "Resolved", layers: Sequence["Layer"], *, where: str) -> "Resolved":
    """The same settings with a step of so many tokens; memory decides in which pieces where nobody says it."""
    from mypt.errors import UsageError
    from mypt.records.batch import MOST_SEQUENCES, sequences_per_step
    from mypt.records.resolve import dotted_layer, resolve

    if resolved.sources["training.batch_size"] in _GIVEN:
        raise UsageError("--batch-size and --global-batch-tokens each say how large a step is: give one of them")
    block_size = resolved.config.model.block_size
    sequences = sequences_per_step(tokens, block_size)
    if sequences > MOST_SEQUENCES:
        allowed = f"at most {MOST_SEQUENCES * block_size:,}, {MOST_SEQUENCES:,} sequences of {block_size:,}"
        raise UsageError(f"--global-batch-tokens {tokens[:40]}: too many for a step (allowed: {allowed})")
    layer = dotted_layer("--global-batch-tokens", {"training.batch_size": sequences})
    again = resolve([*layers, layer], where=where)
    if again.sources["training.micro_batch_size"] not in _GIVEN:
        again.sources["training.micro_batch_size"] = MEMORY_DECIDES
    return again
