/* Products of small matrices in bf16, summed in fp32, by instructions that take pairs of numbers: AMX's for tiles of
 * 16 x 16, or AVX-512's for vectors. Rows, columns and depths are filled up to multiples of MULTIPLE.
 *
 * The left matrix lies as it is. Of the right one a word holds two numbers of a column, one below the other, and
 * sixteen columns lie together: a tile is read from one place.
 */
#include "tiles.h"

#ifdef HAS_PAIRS

typedef struct {
    const uint16_t *numbers; /* (rows, depth) */
    int64_t row;
} Left;

#define TILE 16

typedef struct {
    const uint32_t *pairs; /* (columns / TILE, depth / 2, TILE) */
    int64_t block;         /* words from TILE columns to the next ones */
} Right;

#ifdef __AMX_BF16__
/* What was written is in memory: GCC's functions for tiles do not say which memory they read. */
#define SETTLED(memory) __asm__ volatile("" : : "r"(memory) : "memory")

/* Each thread, before its first product, and after its last one. */
static void begin_products(void) {
    struct {
        uint8_t palette, start, unused[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    EACH(i, 8) tiles.row_bytes[i] = 4 * TILE, tiles.rows[i] = TILE;
    SETTLED(&tiles);
    _tile_loadconfig(&tiles);
}

static void end_products(void) { _tile_release(); }

/* 32 x 32 sums in four tiles */
static void product_tile(float *to, int64_t to_row, Left a, Right b, int64_t depth, enum Sum sum) {
    int64_t stride = to_row * sizeof(float), a_stride = a.row * sizeof(uint16_t);
    float *below = to + TILE * to_row;
    SETTLED(to);
    if (sum == MORE) {
        _tile_loadd(0, to, stride);
        _tile_loadd(1, to + TILE, stride);
        _tile_loadd(2, below, stride);
        _tile_loadd(3, below + TILE, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; k += 2 * TILE) {
        const uint16_t *left = a.numbers + k;
        const uint32_t *right = b.pairs + k / 2 * TILE;
        _tile_loadd(4, left, a_stride);
        _tile_loadd(6, right, 4 * TILE);
        _tile_loadd(7, right + b.block, 4 * TILE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + TILE * a.row, a_stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, stride);
    _tile_stored(1, to + TILE, stride);
    _tile_stored(2, below, stride);
    _tile_stored(3, below + TILE, stride);
    SETTLED(to);
}

#else
static void begin_products(void) {}
static void end_products(void) {}

/* 8 x 32 sums in registers */
static void sums_of_rows(float *to, int64_t to_row, Left a, Right b, int64_t depth, enum Sum sum) {
    Lanes sums[TILE_ROWS][TILE_VECTORS];
    EACH_UNROLLED(r, TILE_ROWS) EACH_UNROLLED(v, TILE_VECTORS) {
        sums[r][v] = sum == MORE ? load(to + r * to_row + v * LANES, FP32) : (Lanes){};
    }
    EACH(k, depth / 2) {
        __m512i row[TILE_VECTORS];
        EACH_UNROLLED(v, TILE_VECTORS) row[v] = _mm512_loadu_si512(b.pairs + k * TILE + v * b.block);
        EACH_UNROLLED(r, TILE_ROWS) {
            int32_t pair;
            memcpy(&pair, a.numbers + r * a.row + 2 * k, sizeof pair);
            __m512i left = _mm512_set1_epi32(pair);
            EACH_UNROLLED(v, TILE_VECTORS) {
                sums[r][v] = (Lanes)_mm512_dpbf16_ps((__m512)sums[r][v], (__m512bh)left, (__m512bh)row[v]);
            }
        }
    }
    EACH_UNROLLED(r, TILE_ROWS) EACH_UNROLLED(v, TILE_VECTORS) store(to + r * to_row + v * LANES, sums[r][v]);
}

static void product_tile(float *to, int64_t to_row, Left a, Right b, int64_t depth, enum Sum sum) {
    for (int64_t r = 0; r < MULTIPLE; r += TILE_ROWS) {
        sums_of_rows(to + r * to_row, to_row, (Left){a.numbers + r * a.row, a.row}, b, depth, sum);
    }
}
#endif

/* to (rows, columns) = or += a (rows, depth) x b (depth, columns) */
static void multiply_pairs(float *to, int64_t to_row, Left a, Right b, int64_t rows, int64_t columns, int64_t depth,
                           enum Sum sum) {
    for (int64_t c = 0; c < columns; c += MULTIPLE)
        for (int64_t r = 0; r < rows; r += MULTIPLE) {
            Left some = {a.numbers + r * a.row, a.row};
            product_tile(to + r * to_row + c, to_row, some, (Right){b.pairs + c / TILE * b.block, b.block}, depth, sum);
        }
}

/* How matrices come to lie so */

static void narrow(uint16_t *to, const float *from, int64_t count) {
    EACH_VECTOR(i, count) put(to, i, count, BF16, load(from + i, FP32));
}

INLINE Bits paired(Lanes first, Lanes second) {
    return widened(narrowed(first)) | widened(narrowed(second)) << 16;
}

/* (rows, columns) of bf16, `from_row` apart -> pairs of rows; blocks are so many words apart. */
static void pair_rows(uint32_t *to, int64_t block, const uint16_t *from, int64_t from_row, int64_t rows,
                      int64_t columns) {
    for (int64_t c = 0; c < columns; c += TILE, to += block)
        for (int64_t r = 0; r < rows; r += 2) {
            const uint16_t *pair = from + r * from_row + c;
            Bits first = widened(*(const Halves *)pair), second = widened(*(const Halves *)(pair + from_row));
            *(Bits *)(to + r / 2 * TILE) = first | second << 16;
        }
}

/* (rows, columns) of bf16 -> pairs of columns, which become rows */
static void pair_columns(uint32_t *to, const uint16_t *from, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; r += TILE, to += TILE * columns / 2)
        turn_over(to, TILE, from + r * columns, columns / 2, TILE, columns / 2);
}
#endif
