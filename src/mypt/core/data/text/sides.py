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


def tail_note(documents: int, val_fraction: float) -> str:
    """Say in words that the split is not by content."""
    share = f"the last {val_fraction:.0%} of the tokens are held out for validation"
    if documents == 1:
        return f"one document: {share}"
    return f"all {documents} documents fall on one side of the split: {share} instead"
