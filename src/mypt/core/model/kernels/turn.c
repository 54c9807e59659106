/* A matrix in bf16 turned over: products with it as it then lies are faster. */
#include "turns.h"

/* (rows, columns) -> (columns, rows); multiples of TURNED_ROWS and of LANES. New rows are `to_row` apart. */
void mypt_turn(const uint16_t *from, uint16_t *to, int64_t rows, int64_t columns, int64_t to_row, int32_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r += TURNED_ROWS) turn_rows(to + r, to_row, from + r * columns, columns, columns);
}
