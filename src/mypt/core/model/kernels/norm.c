/* Norms of all rows, and their gradients. */
#include "norm.h"

/* In `kind`, and so from now on as any other row. */
INLINE void add_up(const Norm *n, int64_t r, int64_t kind) {
    const void *inputs = at(n->inputs, r * n->width, kind), *added = at(n->added, r * n->width, kind);
    void *sums = place(n->sums, r * n->width, kind);
    EACH_VECTOR(i, n->width) {
        CALL_FOR(inputs, i, kind), CALL_FOR(added, i, kind), CALL_FOR_PLACE(sums, i, kind);
        put(sums, i, n->width, kind, get(inputs, i, n->width, kind) + get(added, i, n->width, kind));
    }
}

INLINE void norm(const Norm *n, void *outputs, int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(n->threads)
    for (int64_t r = 0; r < n->rows; r++) {
        if (n->added) add_up(n, r, kind);
        const void *from = at(n->added ? n->sums : n->inputs, r * n->width, kind);
        measure_row(n, r, from, kind);
        norm_row(n, r, from, place(outputs, r * n->width, kind), kind);
    }
}

typedef struct {
    const void *outputs, *sums; /* (rows, width); those of the inputs that passed by, or none */
    void *inputs;
    float *weights, *biases; /* (rows / ROWS_AT_ONCE, width), to be added up: their order does not depend on threads */
} Gradients;

INLINE void norm_back(const Norm *n, const Gradients *g, int64_t kind) {
    int64_t width = n->width;
#pragma omp parallel for schedule(static) num_threads(n->threads)
    for (int64_t first = 0; first < n->rows; first += ROWS_AT_ONCE) {
        int64_t share = first / ROWS_AT_ONCE * width;
        float *weights = g->weights + share, *biases = g->biases ? g->biases + share : NULL;
        memset(weights, 0, width * sizeof(float));
        if (biases) memset(biases, 0, width * sizeof(float));
        for (int64_t r = first; r < n->rows && r < first + ROWS_AT_ONCE; r++) {
            const void *from = at(n->inputs, r * width, kind), *moved = at(g->outputs, r * width, kind);
            const void *beside = g->sums ? at(g->sums, r * width, kind) : NULL;
            norm_row_back(n, r, from, moved, beside, place(g->inputs, r * width, kind), weights, biases, kind);
        }
    }
}

/* The same for each kind, so that no vector has to ask. */
void mypt_norm(const Norm *n, void *outputs) {
    n->kind == FP32 ? norm(n, outputs, FP32) : norm(n, outputs, BF16);
}

void mypt_norm_back(const Norm *n, const Gradients *g) {
    n->kind == FP32 ? norm_back(n, g, FP32) : norm_back(n, g, BF16);
}
