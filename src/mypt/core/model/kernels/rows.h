/* Rows in bf16 that are multiplied by matrices of weights, and the way back: some rows at a time, by one thread, so
 * that they stay near; gradients of weights are products over all rows.
 */
#pragma once
#include "pairs.h"

#ifdef HAS_PAIRS

#define ROWS 64 /* at a time */
#define EACH_STRIP(index, count) for (int64_t index = 0; index < (count); index += MULTIPLE)

static void *take(float **memory, int64_t words) {
    float *taken = *memory;
    *memory += words;
    return taken;
}

/* What rows are multiplied by: a matrix of weights turned over, or as it is on the way back. */
typedef struct {
    const uint16_t *weights, *biases;
    int64_t depth, columns;
    uint32_t *pairs; /* (columns / TILE, depth / 2, TILE) */
} Factor;

static Factor factor_of(float **memory, const void *weights, const void *biases, int64_t outputs, int64_t inputs,
                        int is_back) {
    if (!weights) return (Factor){};
    uint32_t *pairs = take(memory, outputs * inputs / 2);
    if (is_back) return (Factor){weights, NULL, outputs, inputs, pairs};
    return (Factor){weights, biases, inputs, outputs, pairs};
}

/* Each thread makes some pairs. */
static void pack(const Factor *f, int is_back) {
#pragma omp for schedule(static) nowait
    for (int64_t c = 0; c < f->columns; c += TILE) {
        uint32_t *to = f->pairs + c * f->depth / 2;
        if (is_back)
            pair_rows(to, 0, f->weights + c, f->columns, f->depth, TILE);
        else
            pair_columns(to, f->weights + c * f->depth, TILE, f->depth);
    }
}

/* rows (count, depth) x MULTIPLE of the columns */
static void multiply_strip(float *to, int64_t to_row, const uint16_t *rows, const Factor *f, int64_t c, int64_t count,
                           enum Sum sum) {
    int64_t block = f->depth / 2 * TILE;
    Right columns = {f->pairs + c / TILE * block, block};
    multiply_pairs(to, to_row, (Left){rows, f->depth}, columns, count, MULTIPLE, f->depth, sum);
}

/* rows (count, depth) -> (count, columns), with biases, and with what is added, or none */
static void linear(uint16_t *to, const uint16_t *rows, const Factor *f, const uint16_t *added, int64_t count,
                   float *strip) {
    EACH_STRIP(c, f->columns) {
        multiply_strip(strip, MULTIPLE, rows, f, c, count, NEW);
        EACH(r, count) for (int64_t i = 0; i < MULTIPLE; i += LANES) {
            int64_t place = r * f->columns + c + i;
            Lanes y = load(strip + r * MULTIPLE + i, FP32);
            if (f->biases) y += load(f->biases + c + i, BF16);
            if (added) y += load(added + place, BF16);
            *(Halves *)(to + place) = narrowed(y);
        }
    }
}

/* Rows as gradients of weights need them: turned over to the left, or in pairs to the right. N: of all rows. */
static int64_t turned_row(int64_t N) { return N + TURNED_ROWS; } /* a power of two apart they would share few lines */

static void keep_turned(int64_t width, int64_t N, uint16_t *to, const uint16_t *rows, int64_t first, int64_t count) {
    for (int64_t r = 0; r < count; r += TURNED_ROWS)
        turn_rows(to + first + r, turned_row(N), rows + r * width, width, width);
}

static void keep_pairs(int64_t N, uint32_t *to, const uint16_t *rows, int64_t first, int64_t count, int64_t width) {
    pair_rows(to + first / 2 * TILE, N / 2 * TILE, rows, width, count, width);
}

/* MULTIPLE of the turned rows x MULTIPLE columns of the pairs */
static void multiply_over_rows(float *strip, const uint16_t *turned, const uint32_t *pairs, int64_t r, int64_t c,
                               int64_t N) {
    int64_t block = N / 2 * TILE;
    Left left = {turned + r * turned_row(N), turned_row(N)};
    multiply_pairs(strip, MULTIPLE, left, (Right){pairs + c / TILE * block, block}, MULTIPLE, MULTIPLE, N, NEW);
}
#endif
