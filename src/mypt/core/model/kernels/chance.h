/* Dropout (Srivastava et al., 2014). What a number is multiplied by: 0 for a share of them, by chance, and more than 1
 * for the rest. The chance is a hash (MurmurHash3's last steps) of seed and place: it is found again on the way back.
 */
#pragma once
#include "vectors.h"

typedef struct {
    uint32_t row, least;
    float factor;
} Chance;

/* Of a row of numbers. */
INLINE Chance chance_in(uint64_t seed, uint64_t row, float dropout) {
    uint64_t x = seed + 0x9e3779b97f4a7c15u * (row + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u; /* SplitMix64 */
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (Chance){x ^ (x >> 31), dropout * 4294967296.0, 1 / (1 - dropout)};
}

INLINE Lanes kept(Chance chance, int64_t place) {
    Bits x = ((Bits)LANE + (uint32_t)place) * 0x9e3779b9u + chance.row;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    x ^= x >> 16;
    return choose((Whole)(x >= chance.least), (Lanes){} + chance.factor, (Lanes){});
}
