/* What Muon (core/train/muon.py) does to matrices beside products: momentum before them, and the move after. */
#include "vectors.h"

#define TINY 1e-10f

INLINE Lanes between(Lanes a, Lanes b, float share) { return a + share * (b - a); }

/* stack (count, numbers): each gradient, and `share` of the way to its momentum */
void mypt_muon_mix(const float *const *gradients, const float *const *momenta, void *stack, float share, int64_t count,
                   int64_t numbers, int32_t threads, int64_t kind) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t m = 0; m < count; m++)
        for (int64_t first = 0; first < numbers; first += NUMBERS_AT_ONCE)
            EACH_VECTOR_FROM(i, first, numbers) {
                Lanes gradient = get(gradients[m], i, numbers, FP32), momentum = get(momenta[m], i, numbers, FP32);
                put(place(stack, m * numbers, kind), i, numbers, kind, between(gradient, momentum, share));
            }
}

typedef struct {
    float *weights, *momentum, *row_squares; /* (rows, columns), the same, (rows) */
    const float *gradients;
    const void *directions;
    int64_t rows, columns, kind;
    float rate, shrink, momentum_share, row_share;
    int32_t threads;
} Move;

/* Rows of even length, by the running mean of their squares, and the whole as long as it was. */
void mypt_muon_move(const Move *m, float *scales) {
    float before = 0, after = 0;
#pragma omp parallel for schedule(static) num_threads(m->threads)
    for (int64_t r = 0; r < m->rows; r++) {
        const void *row = at(m->directions, r * m->columns, m->kind);
        Lanes sum = {};
        EACH_VECTOR(i, m->columns) {
            Lanes x = get(row, i, m->columns, m->kind);
            sum += x * x;
        }
        float square = total(sum) / m->columns, known = m->row_squares[r];
        float running = m->row_squares[r] = known + m->row_share * (square - known);
        scales[r] = square;
        scales[m->rows + r] = 1 / sqrtf(running > TINY ? running : TINY);
    }
    EACH(r, m->rows) {
        before += scales[r];
        after += scales[r] * scales[m->rows + r] * scales[m->rows + r];
    }
    float even = sqrtf(before) / (sqrtf(after) > TINY ? sqrtf(after) : TINY);
#pragma omp parallel for schedule(static) num_threads(m->threads)
    for (int64_t r = 0; r < m->rows; r++) {
        int64_t first = r * m->columns;
        const void *row = at(m->directions, first, m->kind);
        float step = -m->rate * even * scales[m->rows + r];
        EACH_VECTOR(i, m->columns) {
            float *momentum = m->momentum + first, *weights = m->weights + first;
            Lanes gradient = get(m->gradients + first, i, m->columns, FP32);
            Lanes moved = between(gradient, get(momentum, i, m->columns, FP32), m->momentum_share);
            put(momentum, i, m->columns, FP32, moved);
            Lanes weight = get(weights, i, m->columns, FP32) * m->shrink;
            put(weights, i, m->columns, FP32, weight + get(row, i, m->columns, m->kind) * step);
        }
    }
}
