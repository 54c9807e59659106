"""How many sequences an optimizer step learns from, where that is said in tokens; and in which pieces."""

from mypt.errors import UsageError
from mypt.units import parse_count

MOST_SEQUENCES = 1_000_000
"""Of one optimizer step."""


def sequences_per_step(text: str, block_size: int) -> int:
    """Read a number of tokens ('64k', '0.5M', '524288') as whole sequences of `block_size` tokens.

    Raises:
        UsageError: when it is none, or not a whole number of sequences; with the nearest numbers that are.
    """
    try:
        tokens = parse_count(text)
    except ValueError:
        tokens = 0.0
    if not tokens or tokens != int(tokens):
        raise UsageError(f"--global-batch-tokens {text[:40]}: should be a whole number of tokens (64k, 0.5M, 524288)")
    sequences, rest = divmod(int(tokens), block_size)
    if rest:
        near = [count * block_size for count in (sequences, sequences + 1) if count]
        allowed = " or ".join(f"{count:,} (={count // block_size:,} x {block_size:,})" for count in near)
        raise UsageError(
            f"--global-batch-tokens {text[:40]}: {int(tokens):,} tokens are no whole sequences of {block_size:,} "
            f"(nearest: {allowed})"
        )
    return sequences


def even_pieces(sequences: int, most: int) -> int:
    """In pieces of how many to pass a batch, at most so many at once.

    A divisor makes all pieces equal: 12 for 48 sequences where 15 fit. Where the nearest one is less than half of what
    fits, the pieces are as even as they can be: 16 and 15 for 31 sequences where 20 fit.
    """
    divisor = next(size for size in range(min(most, sequences), 0, -1) if sequences % size == 0)
    if 2 * divisor >= min(most, sequences):
        return divisor
    pieces = -(-sequences // most)
    return -(-sequences // pieces)
