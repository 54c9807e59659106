/* Rows of numbers in fp32 or bf16, by vectors, of which the last may be a part. */
#pragma once
#include <omp.h>

#include "numbers.h"

#if defined(__AMX_BF16__) || defined(__AVX512BF16__)
#define HAS_PAIRS /* instructions that multiply pairs of numbers in bf16 */
#endif

#define EACH_VECTOR(index, count) for (int64_t index = 0; index < (count); index += LANES)
#define EACH_VECTOR_FROM(index, first, count) /* of those that a thread takes together */                              \
    for (int64_t index = first; index < (count) && index < (first) + NUMBERS_AT_ONCE; index += LANES)

INLINE Lanes get(const void *row, int64_t i, int64_t count, int64_t kind) {
    const void *from = at(row, i, kind);
    return count - i < LANES ? load_part(from, count - i, kind) : load(from, kind);
}

INLINE void *place(void *memory, int64_t index, int64_t kind) { return (char *)memory + index * size_of(kind); }

/* To the nearest number of bf16, ties to even. */
INLINE Halves narrowed(Lanes lanes) {
#ifdef __AVX512BF16__
    return (Halves)_mm512_cvtneps_pbh((__m512)lanes); /* which takes the very smallest numbers for 0 */
#endif
    Bits bits = (Bits)lanes, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, is_nan = (Bits)(lanes != lanes);
    rounded = (rounded & ~is_nan) | (0x7fc0 & is_nan);
#ifdef __AVX512F__
    return (Halves)_mm512_cvtepi32_epi16((__m512i)rounded);
#endif
    return __builtin_convertvector(rounded, Halves);
}

INLINE void put(void *row, int64_t i, int64_t count, int64_t kind, Lanes lanes) {
    void *to = place(row, i, kind);
    Halves narrow = kind == BF16 ? narrowed(lanes) : (Halves){};
    if (count - i < LANES)
        memcpy(to, kind == BF16 ? (void *)&narrow : (void *)&lanes, (count - i) * size_of(kind));
    else if (kind == BF16)
        *(Halves *)to = narrow;
    else
        *(Lanes *)to = lanes;
}

/* Long rows come from far away: what is needed soon is called for, to be read or to be written. */
#define SOON 2048
#define CALL_FOR(memory, i, kind) __builtin_prefetch(at(memory, (i) + SOON, kind))
#define CALL_FOR_PLACE(memory, i, kind) __builtin_prefetch(at(memory, (i) + SOON, kind), 1)

/* Of lanes that are all numbers. */
INLINE float largest(Lanes lanes) {
    for (int half = LANES / 2; half; half /= 2) lanes = larger(__builtin_shuffle(lanes, LANE ^ half), lanes);
    return lanes[0];
}

/* 1 / the root of the mean of squares. */
INLINE float normalizer(const void *row, int64_t count, int64_t kind, float eps) {
    Lanes sum = {};
    EACH_VECTOR(i, count) {
        Lanes x = get(row, i, count, kind);
        sum += x * x;
    }
    return 1 / sqrtf(total(sum) / count + eps);
}
