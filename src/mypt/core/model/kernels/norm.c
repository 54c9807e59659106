/* RMSNorm (Zhang and Sennrich, 2019) and LayerNorm (Ba et al., 2016), and their gradients. */
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

/* In `kind`, and so from now on as any other row. */
INLINE void add_up(const Norm *n, int64_t r, int64_t kind) {
    const void *inputs = at(n->inputs, r * n->width, kind), *added = at(n->added, r * n->width, kind);
    void *sums = place(n->sums, r * n->width, kind);
    EACH_VECTOR(i, n->width) {
        CALL_FOR(inputs, i, kind), CALL_FOR(added, i, kind), CALL_FOR_PLACE(sums, i, kind);
        put(sums, i, n->width, kind, get(inputs, i, n->width, kind) + get(added, i, n->width, kind));
    }
}

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

INLINE void norm(const Norm *n, void *outputs, int64_t kind) {
    int64_t width = n->width;
    const void *weights = n->weights, *biases = n->biases;
#pragma omp parallel for schedule(static) num_threads(n->threads)
    for (int64_t r = 0; r < n->rows; r++) {
        if (n->added) add_up(n, r, kind);
        const void *from = at(n->added ? n->sums : n->inputs, r * width, kind);
        void *to = place(outputs, r * width, kind);
        float mean = n->means ? n->means[r] = mean_of(from, width, kind) : 0;
        float factor = n->factors[r] = n->means ? factor_around(mean, from, width, kind, n->eps)
                                                : normalizer(from, width, kind, n->eps);
        EACH_VECTOR(i, width) {
            CALL_FOR(from, i, kind), CALL_FOR_PLACE(to, i, kind);
            Lanes y = (get(from, i, width, kind) - mean) * factor * get(weights, i, width, kind);
            if (biases) y += get(biases, i, width, kind);
            put(to, i, width, kind, y);
        }
    }
}

typedef struct {
    const void *outputs, *sums; /* (rows, width); those of the inputs that passed by, or none */
    void *inputs;
    float *weights, *biases; /* (rows / ROWS_AT_ONCE, width), to be added up: their order does not depend on threads */
} Gradients;

INLINE void row_back(const Norm *n, const Gradients *g, int64_t r, float *weight_sums, float *bias_sums, int64_t kind) {
    int64_t width = n->width;
    const void *moved = at(g->outputs, r * width, kind), *from = at(n->inputs, r * width, kind), *weights = n->weights;
    const void *beside = g->sums ? at(g->sums, r * width, kind) : NULL;
    void *to = place(g->inputs, r * width, kind);
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

INLINE void norm_back(const Norm *n, const Gradients *g, int64_t kind) {
    int64_t width = n->width;
#pragma omp parallel for schedule(static) num_threads(n->threads)
    for (int64_t first = 0; first < n->rows; first += ROWS_AT_ONCE) {
        int64_t share = first / ROWS_AT_ONCE * width;
        float *weights = g->weights + share, *biases = g->biases ? g->biases + share : NULL;
        memset(weights, 0, width * sizeof(float));
        if (biases) memset(biases, 0, width * sizeof(float));
        for (int64_t r = first; r < n->rows && r < first + ROWS_AT_ONCE; r++)
            row_back(n, g, r, weights, biases, kind);
    }
}

/* The same for each kind, so that no vector has to ask. */
void mypt_norm(const Norm *n, void *outputs) {
    n->kind == FP32 ? norm(n, outputs, FP32) : norm(n, outputs, BF16);
}

void mypt_norm_back(const Norm *n, const Gradients *g) {
    n->kind == FP32 ? norm_back(n, g, FP32) : norm_back(n, g, BF16);
}
