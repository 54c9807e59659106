"""Training or validation: what becomes of the two streams that documents were dealt into."""

from mypt.records.dataset import Split, SplitRule
from mypt.records.plan import StreamRange

SPLITS: tuple[Split, Split] = ("train", "val")


def split_ranges(train: int, val: int, val_fraction: float) -> tuple[dict[Split, StreamRange], SplitRule]:
    """Give both splits their tokens: by content, or the tail where that leaves one side empty.

    Args:
        train: tokens of documents on the training side.
        val: tokens of documents on the validation side.
        val_fraction: the share that was asked for.
    """
    if not val_fraction or (train and val):
        whole: dict[Split, StreamRange] = {
            "train": StreamRange(stream="train", start=0, end=train),
            "val": StreamRange(stream="val", start=0, end=val),
        }
        return whole, "content"
    stream: Split = "train" if train else "val"
    total = train + val
    border = total - int(total * val_fraction)
    return {
        "train": StreamRange(stream=stream, start=0, end=border),
        "val": StreamRange(stream=stream, start=border, end=total),
    }, "tail"


def split_note(rule: SplitRule, train: int, val: int, documents: int, val_fraction: float) -> str | None:
    """Say in words what a user would not expect of the split; None where it is as asked for."""
    if rule == "tail":
        share = f"the last {val_fraction:.0%} of the tokens are held out for validation"
        if documents == 1:
            return f"one document: {share}"
        return f"all {documents} documents fall on one side of the split: {share} instead"
    found = val / max(1, train + val)
    if val_fraction and not val_fraction / 2 <= found <= val_fraction * 2:
        return (
            f"{found:.0%} of the tokens are held out for validation, not {val_fraction:.0%}: documents are dealt out "
            f"whole, by their content, and {documents} are few"
        )
    return None
