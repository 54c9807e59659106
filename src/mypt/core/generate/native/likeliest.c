/* Scores -> the ids of the highest, in order, and those as high as the last of them; several rows at once.
 */
#include "rows.h"

#define GROUPS 1024 /* into which scores are dealt */

/* Whole numbers in the order of the numbers, and the other way round. */
INLINE Whole ordered(Whole bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

/* A bit for each lane that is not below. */
INLINE uint32_t not_below(Lanes lanes, Lanes mark) {
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask((__m512)lanes, (__m512)mark, _CMP_GE_OQ);
#else
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)lanes, (__m256)mark, _CMP_GE_OQ));
#endif
}

/* The largest number that at least `wanted` of the scores are not below: found bit by bit, from the sign on. They are
 * whole vectors, and are used up.
 */
static Lanes mark_of(float *scores, int64_t count, int64_t wanted) {
    uint32_t mark = 0, sign = 1u << 31;
    for (int64_t k = 0; k < count; k += LANES) store(scores + k, (Lanes)ordered((Whole)(load(scores + k, FP32) + 0.0f)));
    for (uint32_t bit = sign; bit; bit >>= 1) {
        int32_t trial = (mark | bit) ^ sign, above = 0;
        Whole found = {};
        for (int64_t k = 0; k < count; k += LANES) found -= (Whole)load(scores + k, FP32) >= trial;
        EACH(i, LANES) above += found[i];
        if (above >= wanted) mark |= bit;
    }
    return (Lanes)ordered((Whole){} + (int32_t)(mark ^ sign));
}

/* Neighbours belong to different groups. As many of the groups' best as are wanted are not below their mark, so what is
 * below it is not among the likeliest.
 */
static Lanes mark_of_groups(const float *scores, int64_t count, int64_t wanted) {
    float best[GROUPS] __attribute__((aligned(64)));
    EACH(g, GROUPS) best[g] = -INFINITY;
    for (int64_t k = 0; k + LANES <= count; k += LANES)
        store(best + k % GROUPS, larger(load(best + k % GROUPS, FP32), load(scores + k, FP32)));
    return mark_of(best, GROUPS, wanted);
}

/* The number of ids; there is room for all. */
static int64_t likeliest(const float *scores, int64_t count, int64_t wanted, int64_t *ids, float *kept_scores) {
    int64_t found = 0, kept = 0;
    Lanes mark = {};
    if (wanted > GROUPS) mark -= INFINITY;
    else mark = mark_of_groups(scores, count, wanted);
    for (int64_t k = 0; k < count; k += LANES) {
        int64_t lanes = count - k < LANES ? count - k : LANES;
        uint32_t all = (1u << lanes) - 1;
        Lanes next = lanes == LANES ? load(scores + k, FP32) : load_part(scores + k, lanes, FP32);
        for (uint32_t bits = not_below(next, mark) & all; bits; bits &= bits - 1) {
            ids[found] = k + __builtin_ctz(bits);
            kept_scores[found] = scores[ids[found]];
            found++;
        }
    }
    for (int64_t i = found; i % LANES; i++) kept_scores[i] = -INFINITY;
    mark = mark_of(kept_scores, found, wanted);
    EACH(i, found) if (scores[ids[i]] >= mark[0]) ids[kept++] = ids[i];
    return kept;
}

/* Rows of scores, `stride` apart -> the number of ids of each, and the ids, (rows, count). There is room to work in for
 * as many scores in rows of their own, (rows, count up to a whole row).
 */
void mypt_likeliest(const float *scores, int64_t stride, int64_t rows, int64_t count, int64_t wanted, int64_t *ids,
                    float *room, int64_t *found, int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
    EACH(row, rows) found[row] =
        likeliest(scores + row * stride, count, wanted, ids + row * count, room + row * padded(count));
}
