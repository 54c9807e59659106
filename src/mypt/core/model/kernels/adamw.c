/* AdamW (Loshchilov and Hutter, 2019), and the norm that gradients are clipped by, of all parameters in one call. */
#include "vectors.h"

#define NUMBERS_AT_ONCE 4096
#define TINY 1e-6 /* so that no norm is 0 */

/* Some numbers of each parameter after others, by all threads. */
#define EACH_PART(part, first, counts, parts)                                                                          \
    for (int64_t part = 0; part < (parts); part++)                                                                     \
        _Pragma("omp for schedule(static) nowait")                                                                     \
        for (int64_t first = 0; first < (counts)[part]; first += NUMBERS_AT_ONCE)
#define EACH_VECTOR_FROM(i, first, count)                                                                              \
    for (int64_t i = first; i < (count) && i < (first) + NUMBERS_AT_ONCE; i += LANES)

INLINE Lanes root(Lanes x) {
#ifdef __AVX512F__
    return (Lanes)_mm512_sqrt_ps((__m512)x);
#else
    return (Lanes)_mm256_sqrt_ps((__m256)x);
#endif
}

typedef struct {
    float *const *weights, *const *gradients, *const *means, *const *squares;
    const float *rates, *corrections; /* of each part: the rate, and what squares are multiplied by, in this step */
    const int64_t *counts;
    int64_t parts;
    float shrink, mean_share, square_share, eps;
    int32_t threads;
} AdamW;

void mypt_adamw(const AdamW *a) {
#pragma omp parallel num_threads(a->threads)
    EACH_PART(part, first, a->counts, a->parts) {
        float *weights = a->weights[part], *means = a->means[part], *squares = a->squares[part];
        const float *gradients = a->gradients[part];
        float rate = a->rates[part], correction = a->corrections[part];
        int64_t count = a->counts[part];
        EACH_VECTOR_FROM(i, first, count) {
            CALL_FOR(weights, i, FP32), CALL_FOR(means, i, FP32), CALL_FOR(squares, i, FP32);
            Lanes gradient = get(gradients, i, count, FP32);
            Lanes mean = get(means, i, count, FP32), square = get(squares, i, count, FP32);
            mean += a->mean_share * (gradient - mean);
            square += a->square_share * (gradient * gradient - square);
            Lanes weight = get(weights, i, count, FP32) * a->shrink;
            put(weights, i, count, FP32, weight - rate * mean / (root(square * correction) + a->eps));
            put(means, i, count, FP32, mean);
            put(squares, i, count, FP32, square);
        }
    }
}

/* Make gradients shorter whose norm is above `most`; gives the norm. A part's sums are from `starts` on. */
double mypt_clip(float *const *gradients, const int64_t *counts, int64_t parts, double most, float *sums,
                 const int64_t *starts, int32_t threads) {
    double all = 0;
#pragma omp parallel num_threads(threads)
    EACH_PART(part, first, counts, parts) {
        Lanes sum = {};
        EACH_VECTOR_FROM(i, first, counts[part]) {
            Lanes x = get(gradients[part], i, counts[part], FP32);
            sum += x * x;
        }
        sums[starts[part] + first / NUMBERS_AT_ONCE] = total(sum);
    }
    EACH(i, starts[parts]) all += sums[i];
    double norm = sqrt(all), factor = most / (norm + TINY);
    if (!(factor < 1)) return norm;
#pragma omp parallel num_threads(threads)
    EACH_PART(part, first, counts, parts) {
        EACH_VECTOR_FROM(i, first, counts[part]) {
            put(gradients[part], i, counts[part], FP32, get(gradients[part], i, counts[part], FP32) * (float)factor);
        }
    }
    return norm;
}
