"""Chance as a function: hash a few whole numbers into a seed for anything."""

_GOLDEN = 0x9E37_79B9_7F4A_7C15
_MASK_64 = 2**64 - 1


def mix(*numbers: int) -> int:
    """Hash whole numbers into 63 bits (splitmix64's finalizer, chained; Steele et al., 2014)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK_64)) + _GOLDEN & _MASK_64
        state = (state ^ state >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK_64
        state = (state ^ state >> 27) * 0x94D0_49BB_1331_11EB & _MASK_64
        state ^= state >> 31
    return state >> 1
