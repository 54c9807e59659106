/* Logits -> losses, and in the logits' place the gradients of their sum. */
#include "vectors.h"

INLINE Lanes part_of(Lanes lanes, int64_t count, float rest) {
    return choose(LANE < (int32_t)(count < LANES ? count : LANES), lanes, (Lanes){} + rest);
}

INLINE float score(void *row, int64_t target, int64_t width, float weight, int64_t kind) {
    Lanes most = (Lanes){} - INFINITY, sum = {};
    EACH_VECTOR(i, width) {
        Lanes x = part_of(get(row, i, width, kind), width - i, -INFINITY);
        most = choose(x > most, x, most);
    }
    float less = largest(most), own = get(at(row, target, kind), 0, 1, kind)[0];
    EACH_VECTOR(i, width) {
        Lanes raised = exponential(get(row, i, width, kind) - less);
        if (kind == FP32) put(row, i, width, kind, raised);
        sum += part_of(raised, width - i, 0);
    }
    float all = total(sum), factor = weight / all;
    EACH_VECTOR(i, width) {
        Lanes x = get(row, i, width, kind), raised = kind == FP32 ? x : exponential(x - less);
        Lanes is_target = choose(LANE + (int32_t)i == (int32_t)target, (Lanes){} + weight, (Lanes){});
        put(row, i, width, kind, raised * factor - is_target);
    }
    return less + logf(all) - own;
}

/* Rows whose target is negative have no loss. `weight`: of each other loss. */
void mypt_loss(void *logits, const int64_t *targets, float *losses, float weight, int64_t rows, int64_t width,
               int32_t threads, int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        void *row = place(logits, r * width, kind);
        if (targets[r] < 0) {
            memset(row, 0, width * size_of(kind));
            losses[r] = 0;
        } else if (kind == FP32)
            losses[r] = score(row, targets[r], width, weight, FP32);
        else
            losses[r] = score(row, targets[r], width, weight, BF16);
    }
}
