"""Finished units -> where every token goes: duplicates out, both splits their range."""

from collections.abc import Sequence

import numpy as np

from mypt.core.data.prepare.assembly import document_bounds
from mypt.core.data.prepare.duplicates import duplicate_flags, write_drops
from mypt.core.data.prepare.workspace import Workspace
from mypt.core.data.text.documents import END_RECORD
from mypt.core.data.text.sides import SPLITS, split_ranges
from mypt.core.tokens.base import token_type
from mypt.records.dataset import Split
from mypt.records.plan import Layout, UnitResult


def lay_out(workspace: Workspace, results: Sequence[UnitResult]) -> Layout:
    """Decide what is left out and where both splits lie. Units with duplicates get a list of them."""
    tokens: dict[Split, tuple[int, ...]] = {}
    documents = text_bytes = 0
    for split in SPLITS:
        tokens[split], found, found_bytes = _without_duplicates(workspace, split, results)
        documents += found
        text_bytes += found_bytes
    totals = {split: sum(tokens[split]) for split in SPLITS}
    ranges, rule = split_ranges(totals["train"], totals["val"], workspace.plan.text.val_fraction)
    return Layout(
        dtype=token_type(workspace.tokenizer.vocab_size),
        unit_tokens=tokens,
        split_by=rule,
        train=ranges["train"],
        val=ranges["val"],
        duplicate_documents=documents,
        duplicate_bytes=text_bytes,
    )


def _without_duplicates(
    workspace: Workspace, split: Split, results: Sequence[UnitResult]
) -> tuple[tuple[int, ...], int, int]:
    """Tokens of each unit that stay, and the duplicates found: documents and bytes of text.

    Units are walked backwards: what becomes of a document that ends in a later unit is known then.
    """
    counts = [result.stream(split) for result in results]
    tokens = [count.tokens for count in counts]
    found = found_bytes = 0
    next_is_dropped = False
    with duplicate_flags(workspace, split, [count.documents for count in counts]) as all_flags:
        for unit in reversed(range(len(counts))):
            flags = all_flags.of_unit(unit)
            if flags.any():
                found += int(flags.sum())
                records = np.fromfile(workspace.stream_path(unit, split, "docs"), dtype=END_RECORD)
                found_bytes += int(records["text_bytes"][flags].sum())
            if workspace.plan.text.deduplicate and (flags.any() or (tokens[unit] and next_is_dropped)):
                write_drops(workspace, split, unit, flags, tail=next_is_dropped)
                ends = np.fromfile(workspace.stream_path(unit, split, "idx"), dtype="<u8").astype(np.int64)
                lengths = np.diff(document_bounds(ends, tokens[unit]))
                tokens[unit] = int(lengths[~np.append(flags, next_is_dropped)].sum())
            if flags.size:
                next_is_dropped = bool(flags[0])
    return tuple(tokens), found, found_bytes
