/* Small matrices turned over in registers. */
#pragma once
#include "vectors.h"

/* In squares of 2 x `half` words, those right above and those left below change places. */
INLINE void turn_squares(Bits *words, int half) {
    Whole second = (LANE & half) / half, first = 1 - second;
    EACH_UNROLLED(i, LANES) if (!(i & half)) {
        Bits a = words[i], b = words[i + half];
        words[i] = __builtin_shuffle(a, b, LANE + second * (LANES - half));
        words[i + half] = __builtin_shuffle(a, b, LANE + first * half + second * LANES);
    }
}

/* LANES vectors of LANES words. */
INLINE void turn_words(Bits *words) {
    if (LANES == 16) turn_squares(words, 8);
    turn_squares(words, 4);
    turn_squares(words, 2);
    turn_squares(words, 1);
}

/* (rows, columns) of words -> (columns, rows), which are multiples of LANES. Rows are `to_row` and `from_row` apart. */
static void turn_over(void *to, int64_t to_row, const void *from, int64_t from_row, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; r += LANES)
        for (int64_t c = 0; c < columns; c += LANES) {
            Bits words[LANES];
            EACH_UNROLLED(i, LANES) memcpy(words + i, at(from, (r + i) * from_row + c, FP32), sizeof *words);
            turn_words(words);
            EACH_UNROLLED(i, LANES) memcpy(place(to, (c + i) * to_row + r, FP32), words + i, sizeof *words);
        }
}

#define TURNED_ROWS (2 * LANES)

/* (TURNED_ROWS, columns) of bf16 -> (columns, TURNED_ROWS); columns are a multiple of LANES. */
INLINE void turn_rows(uint16_t *to, int64_t to_row, const uint16_t *from, int64_t from_row, int64_t columns) {
    for (int64_t c = 0; c < columns; c += LANES) {
        Bits words[LANES];
        EACH_UNROLLED(i, LANES) {
            const uint16_t *pair = from + 2 * i * from_row + c;
            words[i] = widened(*(const Halves *)pair) | widened(*(const Halves *)(pair + from_row)) << 16;
        }
        turn_words(words);
        EACH_UNROLLED(i, LANES) memcpy(to + (c + i) * to_row, words + i, sizeof *words);
    }
}
