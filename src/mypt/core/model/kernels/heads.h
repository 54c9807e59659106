/* Vectors of heads, as attention takes them: normed and turned to their positions, where the family does so; and the
 * way back of their gradients.
 *
 * Letters: B batch, T positions, H heads of queries, G heads of keys and values, D head width.
 */
#include "tiles.h"

typedef struct {
    const void *inputs;                /* (B, T, H + 2 G, D): queries, keys, values */
    const void *query_norm, *key_norm; /* (D), or none */
    const float *cosines, *sines;      /* (T, D / 2), or none */
    const int64_t *documents;          /* (B, T), or none: all are one */
    int64_t B, T, H, G, D, kind;
    uint64_t seed; /* of what is dropped */
    float dropout, eps;
    int32_t threads;
} Attention;

INLINE int64_t vector(const Attention *a, int64_t b, int64_t t, int64_t head) {
    return ((b * a->T + t) * (a->H + 2 * a->G) + head) * a->D;
}

/* Pairs of numbers, one of each half, by an angle, or by `direction` -1 back. */
static void turn(const Attention *a, float *x, int64_t position, float direction) {
    int64_t half = a->D / 2;
    EACH_VECTOR(i, half) {
        Lanes cosine = get(a->cosines + position * half, i, half, FP32);
        Lanes sine = get(a->sines + position * half, i, half, FP32) * direction;
        Lanes first = get(x, i, half, FP32), second = get(x + half, i, half, FP32);
        put(x, i, half, FP32, first * cosine - second * sine);
        put(x + half, i, half, FP32, second * cosine + first * sine);
    }
}

/* The input of a head at a position, times `scale`. */
static void prepare(const Attention *a, float *to, int64_t from, const void *norm, int64_t position, float scale) {
    const void *x = at(a->inputs, from, a->kind);
    float factor = norm ? normalizer(x, a->D, a->kind, a->eps) * scale : scale;
    EACH_VECTOR(i, a->D) {
        Lanes y = get(x, i, a->D, a->kind) * factor;
        if (norm) y *= get(norm, i, a->D, a->kind);
        put(to, i, a->D, FP32, y);
    }
    if (a->cosines) turn(a, to, position, 1);
}

/* The gradient of what `prepare` gave, which is used up -> that of the input; that of the norm is added to. */
static void go_back(const Attention *a, void *gradients, float *gradient, int64_t from, const void *norm,
                    float *norm_gradient, int64_t position, float scale) {
    int64_t D = a->D, kind = a->kind;
    const void *x = at(a->inputs, from, kind);
    void *to = place(gradients, from, kind);
    if (a->cosines) turn(a, gradient, position, -1);
    if (!norm) {
        EACH_VECTOR(i, D) put(to, i, D, kind, get(gradient, i, D, FP32) * scale);
        return;
    }
    float factor = normalizer(x, D, kind, a->eps);
    Lanes sum = {};
    EACH_VECTOR(i, D) {
        Lanes normed = get(x, i, D, kind) * factor, moved = get(gradient, i, D, FP32) * scale;
        put(norm_gradient, i, D, FP32, get(norm_gradient, i, D, FP32) + moved * normed);
        moved *= get(norm, i, D, kind);
        put(gradient, i, D, FP32, moved);
        sum += moved * normed;
    }
    float mean = total(sum) / D;
    EACH_VECTOR(i, D) {
        Lanes normed = get(x, i, D, kind) * factor;
        put(to, i, D, kind, (get(gradient, i, D, FP32) - normed * mean) * factor);
    }
}
