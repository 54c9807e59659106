/* What is done to all parameters in one call: from one kind of numbers to the other, and the norm of all gradients,
 * which they are clipped by. */
#include "vectors.h"

#define TINY 1e-6 /* so that no norm is 0 */

/* Some numbers of each part after others, by all threads. */
#define EACH_CHUNK(part, first, counts, parts)                                                                         \
    for (int64_t part = 0; part < (parts); part++)                                                                     \
        _Pragma("omp for schedule(static) nowait")                                                                     \
        for (int64_t first = 0; first < (counts)[part]; first += NUMBERS_AT_ONCE)

/* Numbers of bf16 and fp32 -> those of the other kind, which is `kind`. */
void mypt_convert(void *const *to, const void *const *from, const int64_t *counts, int64_t parts, int32_t threads,
                  int64_t kind) {
#pragma omp parallel num_threads(threads)
    EACH_CHUNK(part, first, counts, parts) {
        EACH_VECTOR_FROM(i, first, counts[part]) {
            put(to[part], i, counts[part], kind, get(from[part], i, counts[part], FP32 + BF16 - kind));
        }
    }
}

/* Make gradients shorter whose norm is above `most`; gives the norm. A part's sums are from `starts` on. */
double mypt_clip(float *const *gradients, const int64_t *counts, int64_t parts, double most, float *sums,
                 const int64_t *starts, int32_t threads) {
    double all = 0;
#pragma omp parallel num_threads(threads)
    EACH_CHUNK(part, first, counts, parts) {
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
    EACH_CHUNK(part, first, counts, parts) {
        EACH_VECTOR_FROM(i, first, counts[part]) {
            put(gradients[part], i, counts[part], FP32, get(gradients[part], i, counts[part], FP32) * (float)factor);
        }
    }
    return norm;
}
