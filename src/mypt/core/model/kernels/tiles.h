/* Products of small matrices in fp32, whose rows and columns are filled up to multiples of MULTIPLE. */
#pragma once
#include "turns.h"

#define MULTIPLE 32
#define TILE_ROWS 8 /* times TILE_VECTORS sums stay in registers */
#define TILE_VECTORS 2
#define TILE_COLUMNS (TILE_VECTORS * LANES)

enum Sum { NEW, MORE };

INLINE int64_t filled_up(int64_t count) { return (count + MULTIPLE - 1) / MULTIPLE * MULTIPLE; }

/* A matrix as it lies, or turned over: the next number of a column is `row` further, that of a row `column`. */
typedef struct {
    const float *numbers;
    int64_t row, column;
} Matrix;

static void tile(float *to, int64_t to_row, Matrix a, const float *b, int64_t b_row, int64_t depth, enum Sum sum) {
    Lanes sums[TILE_ROWS][TILE_VECTORS];
    EACH_UNROLLED(r, TILE_ROWS) EACH_UNROLLED(v, TILE_VECTORS) {
        sums[r][v] = sum == MORE ? load(to + r * to_row + v * LANES, FP32) : (Lanes){};
    }
    EACH(k, depth) {
        Lanes row[TILE_VECTORS];
        EACH_UNROLLED(v, TILE_VECTORS) row[v] = load(b + k * b_row + v * LANES, FP32);
        EACH_UNROLLED(r, TILE_ROWS) {
            Lanes factor = (Lanes){} + a.numbers[r * a.row + k * a.column];
            EACH_UNROLLED(v, TILE_VECTORS) sums[r][v] += factor * row[v];
        }
    }
    EACH_UNROLLED(r, TILE_ROWS) EACH_UNROLLED(v, TILE_VECTORS) store(to + r * to_row + v * LANES, sums[r][v]);
}

/* to (rows, columns) = or += a (rows, depth) x b (depth, columns) */
static void multiply(float *to, int64_t to_row, Matrix a, const float *b, int64_t b_row, int64_t rows, int64_t columns,
                     int64_t depth, enum Sum sum) {
    for (int64_t c = 0; c < columns; c += TILE_COLUMNS)
        for (int64_t r = 0; r < rows; r += TILE_ROWS) {
            Matrix some = {a.numbers + r * a.row, a.row, a.column};
            tile(to + r * to_row + c, to_row, some, b + c, b_row, depth, sum);
        }
}
