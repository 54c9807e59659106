/* Vectors of LANES numbers: how they are read, kept, added up, and what functions they are given. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

#define INLINE static inline __attribute__((always_inline))
#define EACH(index, count) for (int64_t index = 0; index < (count); index++)
#define EACH_UNROLLED(index, count) _Pragma("GCC unroll 16") EACH(index, count)

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

enum Kind { FP32, BF16, INT8 };
enum Activation { GELU, RELU, SWIGLU };

#ifdef __AVX512F__
static const Whole LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
static const Whole LANE = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

/* Numbers in memory */

INLINE int64_t size_of(int64_t kind) { return kind == FP32 ? 4 : kind == BF16 ? 2 : 1; }

INLINE const void *at(const void *memory, int64_t index, int64_t kind) {
    return (const char *)memory + index * size_of(kind);
}

/* 16 bits -> the lower half of 32. GCC 12 makes several instructions of __builtin_convertvector. */
INLINE Bits widened(Halves halves) {
#ifdef __AVX512F__
    return (Bits)_mm512_cvtepu16_epi32((__m256i)halves);
#else
    return (Bits)_mm256_cvtepu16_epi32((__m128i)halves);
#endif
}

INLINE Lanes load(const void *from, int64_t kind) {
    if (kind == FP32) return *(const Lanes *)from;
    if (kind == BF16) return (Lanes)(widened(*(const Halves *)from) << 16);
#ifdef __AVX512F__
    return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from)));
#else
    return (Lanes)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(from)));
#endif
}

/* Fewer numbers than a vector has, and then zeros. */
INLINE Lanes load_part(const void *from, int64_t count, int64_t kind) {
    char whole[4 * LANES] = {0};
    memcpy(whole, from, count * size_of(kind));
    return load(whole, kind);
}

INLINE void store(float *to, Lanes lanes) { *(Lanes *)to = lanes; }

INLINE void store_in_cache(void *to, const float *from, int64_t count, int64_t kind) {
    if (kind == FP32) {
        memcpy(to, from, count * sizeof(float));
        return;
    }
    EACH(i, count) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to the nearest, ties to even */
        int is_nan = (bits & 0x7fffffff) > 0x7f800000;                 /* which rounding might make infinite */
        ((uint16_t *)to)[i] = is_nan ? 0x7fc0 : rounded;
    }
}

/* Sums within vectors, all in one order: whoever takes part, the bits are the same */

/* INT8: of whole numbers. */
INLINE Lanes added(Lanes a, Lanes b, int64_t kind) {
    if (kind == INT8) return (Lanes)((Whole)a + (Whole)b);
    return a + b;
}

/* Every lane and the one `half` lanes away: those of `a` where the lane's number lacks that bit, else those of `b`. */
INLINE Lanes merged(Lanes a, Lanes b, int half, int64_t kind) {
    Whole own = LANE + (LANE & half) * (LANES / half), other = own ^ half;
    return added(__builtin_shuffle(a, b, own), __builtin_shuffle(a, b, other), kind);
}

/* LANES vectors -> the total of each. They are used up. */
INLINE Lanes totals(Lanes *sums, int64_t kind) {
    EACH_UNROLLED(i, LANES / 2) sums[i] = merged(sums[i], sums[i + LANES / 2], LANES / 2, kind);
    EACH_UNROLLED(i, LANES / 4) sums[i] = merged(sums[i], sums[i + LANES / 4], LANES / 4, kind);
    EACH_UNROLLED(i, LANES / 8) sums[i] = merged(sums[i], sums[i + LANES / 8], LANES / 8, kind);
    return LANES == 16 ? merged(sums[0], sums[1], 1, kind) : sums[0];
}

INLINE float total(Lanes lanes) {
    for (int half = LANES / 2; half; half /= 2) lanes += __builtin_shuffle(lanes, LANE ^ half);
    return lanes[0];
}

/* Functions of vectors; what is no number stays none */

INLINE Lanes choose(Whole where, Lanes a, Lanes b) { return (Lanes)((where & (Whole)a) | (~where & (Whole)b)); }

/* Of each lane the larger number; of what is none, the other. */
INLINE Lanes larger(Lanes x, Lanes other) {
#ifdef __AVX512F__
    return (Lanes)_mm512_max_ps((__m512)x, (__m512)other);
#else
    return (Lanes)_mm256_max_ps((__m256)x, (__m256)other);
#endif
}

/* The nearest whole numbers, even ones where two are as near, of numbers below 2^22. */
INLINE Whole nearest(Lanes x) {
    return (Whole)(x + 12582912.0f) - 0x4b400000; /* 1.5 x 2^23: numbers of this size have no fraction */
}

/* e^x: 2^n times a polynomial of what n leaves (Cephes), to about one unit in the last place. */
INLINE Lanes exponential(Lanes x) {
#ifdef __AVX512F__
    x = (Lanes)_mm512_max_ps(_mm512_set1_ps(-87), _mm512_min_ps(_mm512_set1_ps(88), (__m512)x));
    Lanes n = (Lanes)_mm512_roundscale_ps((__m512)(x * 1.44269504f), _MM_FROUND_TO_NEAREST_INT);
#else
    x = choose(x > 88.0f, (Lanes){} + 88.0f, x);
    x = choose(x < -87.0f, (Lanes){} - 87.0f, x);
    Whole whole = nearest(x * 1.44269504f);
    Lanes n = __builtin_convertvector(whole, Lanes);
#endif
    Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f; /* log 2 in two parts */
    Lanes y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
#ifdef __AVX512F__
    return (Lanes)_mm512_scalef_ps((__m512)y, (__m512)n);
#else
    return y * (Lanes)((whole + 127) << 23);
#endif
}

INLINE Lanes sigmoid(Lanes x) { return 1.0f / (1.0f + exponential(-x)); }

INLINE Lanes activated(Lanes x, int64_t activation) {
    if (activation == RELU) return choose(x < 0.0f, (Lanes){}, x);
    Lanes slope = x;
    if (activation == GELU) slope = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi): the tanh form */
    return x / (1.0f + exponential(-slope));
}
