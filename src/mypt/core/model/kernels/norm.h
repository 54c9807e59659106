/* RMSNorm (Zhang and Sennrich, 2019) and LayerNorm (Ba et al., 2016) of a row, and their gradients. */
#pragma once
#include "vectors.h"

typedef struct {
    const void *inputs, *added;            /* (rows, width); what is added to them before, or none */
    void *sums;                            /* of both, where something is added */
    const void *weights, *biases;          /* (width), the same or none */
    float *means, *factors;                /* (rows): what is taken from a row, or none; what it is multiplied by */
    int64_t rows, width, kind;
    float eps;
    int32_t threads;
} Norm;

static float mean_of(const void *row, int64_t width, int64_t kind) {
    Lanes sum = {};
    EACH_VECTOR(i, width) sum += get(row, i, width, kind);
    return total(sum) / width;
}

/* 1 / the standard deviation. */
static float factor_around(float mean, const void *row, int64_t width, int64_t kind, float eps) {
    Lanes sum = {};
    EACH_VECTOR(i, width) {
        Lanes x = get(row, i, width, kind) - mean;
        if (width - i < LANES) x = choose(LANE < (int32_t)(width - i), x, (Lanes){});
        sum += x * x;
    }
    return 1 / sqrtf(total(sum) / width + eps);
}

/* Find a row's mean and factor. */
INLINE void measure_row(const Norm *n, int64_t r, const void *from, int64_t kind) {
    if (n->means) n->means[r] = mean_of(from, n->width, kind);
    n->factors[r] = n->means ? factor_around(n->means[r], from, n->width, kind, n->eps)
                             : normalizer(from, n->width, kind, n->eps);
}

/* A measured row. */
INLINE void norm_row(const Norm *n, int64_t r, const void *from, void *to, int64_t kind) {
    const void *weights = n->weights, *biases = n->biases;
    float mean = n->means ? n->means[r] : 0, factor = n->factors[r];
    EACH_VECTOR(i, n->width) {
        CALL_FOR(from, i, kind), CALL_FOR_PLACE(to, i, kind);
        Lanes y = (get(from, i, n->width, kind) - mean) * factor * get(weights, i, n->width, kind);
        if (biases) y += get(biases, i, n->width, kind);
        put(to, i, n->width, kind, y);
    }
}

/* The gradient `moved` of a normed row, and `beside` that of what passes by it, or none -> that of the row. What is to
 * be added to the gradients of weights and biases is added to the sums. */
INLINE void norm_row_back(const Norm *n, int64_t r, const void *from, const void *moved, const void *beside, void *to,
                          float *weight_sums, float *bias_sums, int64_t kind) {
    int64_t width = n->width;
    const void *weights = n->weights;
    float mean = n->means ? n->means[r] : 0, factor = n->factors[r];
    Lanes along = {}, even = {}; /* what a norm does not let through */
    EACH_VECTOR(i, width) {
        Lanes gradient = get(moved, i, width, kind), weight = get(weights, i, width, kind);
        Lanes share = gradient * (get(from, i, width, kind) - mean) * factor;
        put(weight_sums, i, width, FP32, get(weight_sums, i, width, FP32) + share);
        if (bias_sums) put(bias_sums, i, width, FP32, get(bias_sums, i, width, FP32) + gradient);
        along += share * weight;
        even += gradient * weight;
    }
    float slope = total(along) / width, level = n->means ? total(even) / width : 0;
    EACH_VECTOR(i, width) {
        CALL_FOR(moved, i, kind), CALL_FOR(from, i, kind), CALL_FOR_PLACE(to, i, kind);
        Lanes gradient = get(moved, i, width, kind) * get(weights, i, width, kind);
        Lanes normed = (get(from, i, width, kind) - mean) * factor;
        gradient = (gradient - level - normed * slope) * factor;
        if (beside) {
            CALL_FOR(beside, i, kind);
            gradient += get(beside, i, width, kind);
        }
        put(to, i, width, kind, gradient);
    }
}
