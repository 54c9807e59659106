/* A matrix times some inputs. Whole numbers stay whole until their sum is known, which is exact.
 */
#include <omp.h>

#include "rows.h"

/* Of LANES sums, which fill half of the registers: some rows of a matrix times some tokens, or LANES rows times one. */
#define ROWS_AT_ONCE 4
#define TOKENS_AT_ONCE (LANES / ROWS_AT_ONCE)
#define ROWS_AHEAD LANES /* that are fetched from memory while others are summed */
#define MOST 127.0f  /* of a rounded number */
#define LEAST 1e-30f /* of what is the largest in a row: a row of zeros has a scale too */

enum Then { SET, ADD, ACTIVATE, GATE, CHECK };

typedef struct {
    const void *weight;        /* (rows, columns) */
    const float *scale, *bias; /* (rows), or none */
    int64_t rows, columns, kind;
} Matrix;

/* Room for what is computed on the way */
typedef struct {
    float *stream, *normed, *heads, *mixed, *inner; /* a row for each token */
    float *scores;                                  /* a row for each thread */
    int8_t *rounded;                                /* a row for each token in each thread */
    int32_t is_finite;                              /* whether all that was checked is a number */
} Work;

/* Whole numbers in 8 bits, as `multiplied` takes them */

#ifdef __AVX512VNNI__
#define BYTES (4 * LANES)
#define ADDED 128 /* to those of a matrix: the product wants them without a sign */
INLINE Lanes input_bytes(const void *from) { return (Lanes)_mm512_loadu_si512(from); }
INLINE Lanes matrix_bytes(const void *from) { return (Lanes)((Bits)input_bytes(from) ^ 0x80808080u); }
INLINE Lanes multiplied_bytes(Lanes sum, Lanes weights, Lanes inputs) {
    return (Lanes)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)inputs);
}
#else
#define BYTES (2 * LANES)
#define ADDED 0
INLINE Lanes matrix_bytes(const void *from) {
#ifdef __AVX512F__
    return (Lanes)_mm512_cvtepi8_epi16(_mm256_loadu_si256(from));
#else
    return (Lanes)_mm256_cvtepi8_epi16(_mm_loadu_si128(from));
#endif
}
INLINE Lanes input_bytes(const void *from) { return matrix_bytes(from); }
INLINE Lanes multiplied_bytes(Lanes sum, Lanes weights, Lanes inputs) {
#ifdef __AVX512F__
    return (Lanes)((Whole)sum + (Whole)_mm512_madd_epi16((__m512i)weights, (__m512i)inputs));
#else
    return (Lanes)((Whole)sum + (Whole)_mm256_madd_epi16((__m256i)weights, (__m256i)inputs));
#endif
}
#endif

/* The nearest whole numbers once the largest is 127, as int8.py rounds, and how much their sums will be too large. Gives
 * the scale: none where a number is none.
 */
static float round_row(const float *x, int64_t width, int8_t *rounded, uint32_t *excess) {
    typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
    Whole largest = {};
    Bits sum = {};
    for (int64_t k = 0; k < width; k += LANES) {
        Whole sizes = (Whole)load(x + k, FP32) & 0x7fffffff; /* in the order of the numbers, and NaN above all */
        largest = (Whole)choose(sizes > largest, (Lanes)sizes, (Lanes)largest);
    }
    EACH(i, LANES) if (largest[i] > largest[0]) largest[0] = largest[i];
    float most = ((Lanes)largest)[0];
    if (!(most < INFINITY)) return NAN;
    float scale = (most < LEAST ? LEAST : most) * (1 / MOST);
    for (int64_t k = 0; k < width; k += LANES) {
        Whole q = nearest(load(x + k, FP32) / scale);
        *(Bytes *)(rounded + k) = __builtin_convertvector(q, Bytes);
        sum += (Bits)q;
    }
    *excess = 0;
    EACH(i, LANES) *excess += ADDED * sum[i];
    return scale;
}

/* Products */

INLINE Lanes matrix_part(const void *from, int64_t kind) {
    if (kind == INT8) return matrix_bytes(from);
    return load(from, kind);
}

INLINE Lanes input_part(const void *from, int64_t kind) {
    if (kind == INT8) return input_bytes(from);
    return load(from, FP32);
}

INLINE Lanes multiplied(Lanes sum, Lanes weights, Lanes inputs, int64_t kind) {
    if (kind == INT8) return multiplied_bytes(sum, weights, inputs);
    return sum + weights * inputs;
}

/* Up to ROWS_AT_ONCE rows of a matrix times some inputs: sums[n * stride + r], each of which is still a vector.
 * Meanwhile a share of so many of the rows that come later is fetched from memory.
 */
INLINE void add_products(const Matrix *m, int64_t row, int64_t rows, const void *x, int64_t count, int64_t share,
                         int64_t shares, Lanes *sums, int64_t stride, int64_t kind) {
    int64_t step = kind == INT8 ? BYTES : LANES, input_kind = kind == INT8 ? INT8 : FP32;
    int64_t columns = m->columns, whole = columns / step * step, width = padded(columns);
    const void *weights = at(m->weight, row * columns, kind);
    for (int64_t k = 0; k < whole; k += step) {
        Lanes weight[ROWS_AT_ONCE];
        EACH_UNROLLED(r, rows) {
            weight[r] = matrix_part(at(weights, r * columns + k, kind), kind);
            if (shares == 1) __builtin_prefetch(at(weights, (r + ROWS_AHEAD) * columns + k, kind));
        }
        if (shares > 1)
            for (int64_t r = share; r < rows; r += shares)
                __builtin_prefetch(at(weights, (r + ROWS_AHEAD) * columns + k, kind));
        EACH_UNROLLED(n, count) {
            Lanes input = input_part(at(x, n * width + k, input_kind), kind);
            EACH_UNROLLED(r, rows) sums[n * stride + r] = multiplied(sums[n * stride + r], weight[r], input, kind);
        }
    }
    if (whole < columns)
        EACH_UNROLLED(r, rows) {
            char last[4 * LANES] = {0};
            memcpy(last, at(weights, r * columns + whole, kind), (columns - whole) * size_of(kind));
            EACH_UNROLLED(n, count) {
                Lanes input = input_part(at(x, n * width + whole, input_kind), kind);
                sums[n * stride + r] = multiplied(sums[n * stride + r], matrix_part(last, kind), input, kind);
            }
        }
}

/* Some rows times some inputs, LANES sums: number n * rows + r is that of input n and row r. */
INLINE Lanes tile(const Matrix *m, int64_t row, int64_t rows, const void *x, int64_t count, int64_t share,
                  int64_t shares, int64_t kind) {
    Lanes sums[LANES];
    EACH_UNROLLED(i, LANES) sums[i] = (Lanes){};
    int64_t at_once = rows < ROWS_AT_ONCE ? rows : ROWS_AT_ONCE;
    EACH_UNROLLED(part, rows / at_once)
        add_products(m, row + part * at_once, at_once, x, count, share, shares, sums + part * at_once, rows, kind);
    return totals(sums, kind);
}

/* Up to LANES rows times all inputs: sums[n * LANES + r]. Some rows at a time stay near while inputs pass. */
INLINE void tiles(const Matrix *m, int64_t row, const void *x, int64_t count, float *sums, int64_t kind) {
    int64_t input_kind = kind == INT8 ? INT8 : FP32, width = padded(m->columns);
    int64_t rows = m->rows - row, groups = count / TOKENS_AT_ONCE, grouped = groups * TOKENS_AT_ONCE;
    if (rows < LANES) {
        memset(sums, 0, count * LANES * sizeof(float));
        EACH(n, count) EACH(r, rows)
            sums[n * LANES + r] = tile(m, row + r, 1, at(x, n * width, input_kind), 1, 0, 1, kind)[0];
        return;
    }
    for (int64_t r = 0; r < LANES; r += ROWS_AT_ONCE)
        EACH(group, groups) {
            int64_t n = group * TOKENS_AT_ONCE;
            Lanes found = tile(m, row + r, ROWS_AT_ONCE, at(x, n * width, input_kind), TOKENS_AT_ONCE, group, groups, kind);
            EACH_UNROLLED(i, TOKENS_AT_ONCE)
                memcpy(sums + (n + i) * LANES + r, (float *)&found + i * ROWS_AT_ONCE, ROWS_AT_ONCE * sizeof(float));
        }
    for (int64_t n = grouped; n < count; n++)
        store(sums + n * LANES, tile(m, row, LANES, at(x, n * width, input_kind), 1, 0, 1, kind));
}

/* The matrix times each input, with its bias; then it is set, added, activated, gated by what `out` holds, or checked. */
static void product(Work *work, const Matrix *m, const float *x, int64_t count, float *out, enum Then then,
                    int64_t activation) {
    int64_t stride = padded(m->rows), width = padded(m->columns);
    int8_t *rounded = work->rounded + omp_get_thread_num() * MOST_TOKENS * width;
    float scales[MOST_TOKENS];
    uint32_t excess[MOST_TOKENS] = {0};
    Whole finite = (Whole){} - 1;
    if (m->kind == INT8)
        EACH(n, count) scales[n] = round_row(x + n * width, width, rounded + n * width, excess + n);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < m->rows; row += LANES) {
        float sums[MOST_TOKENS * LANES] __attribute__((aligned(64)));
        if (m->kind == FP32) tiles(m, row, x, count, sums, FP32);
        if (m->kind == BF16) tiles(m, row, x, count, sums, BF16);
        if (m->kind == INT8) tiles(m, row, rounded, count, sums, INT8);
        EACH(n, count) {
            float *place = out + n * stride + row;
            Lanes y = load(sums + n * LANES, FP32);
            if (m->kind == INT8) {
                y = __builtin_convertvector((Whole)((Bits)y - excess[n]), Lanes);
                y = y * load(m->scale + row, FP32) * scales[n];
            }
            if (m->bias) y += load(m->bias + row, FP32);
            if (then == ADD) y += load(place, FP32);
            if (then == ACTIVATE) y = activated(y, activation);
            if (then == GATE) y *= activated(load(place, FP32), activation);
            if (then == CHECK) finite &= y < INFINITY; /* which NaN is not */
            store(place, y);
        }
    }
    EACH(i, LANES) if (!finite[i]) {
#pragma omp atomic write
        work->is_finite = 0;
    }
}
