/* Scores of one query with all keys -> weights, and back. */
#pragma once
#include "chance.h"
#include "heads.h"
#include "softmax.h"

#define QUERIES 32 /* at a time */
_Static_assert(MULTIPLE % QUERIES == 0, "the last ones end where filled up rows do");

/* Positions, filled up, and some more: rows a power of two apart share few lines of the cache. */
INLINE int64_t spread(int64_t positions) { return filled_up(positions) + LANES; }

/* Of how many queries some are, the last of which may be beyond the text. */
INLINE int64_t queries_from(const Attention *a, int64_t first) {
    return a->T - first < QUERIES ? a->T - first : QUERIES;
}

/* What a query must not see: later keys, and those of other documents. */
static void hide(const Attention *a, float *scores, int64_t b, int64_t query, int64_t keys) {
    for (int64_t k = query / LANES * LANES; k < keys; k += LANES)
        store(scores + k, choose(LANE > (int32_t)(query - k), (Lanes){} - INFINITY, load(scores + k, FP32)));
    if (!a->documents) return;
    const int64_t *documents = a->documents + b * a->T;
    EACH(k, query + 1) if (documents[k] != documents[query]) scores[k] = -INFINITY;
}

/* The logarithm of numbers from 1 on (Cephes), to about one unit in the last place. */
INLINE Lanes logarithm(Lanes x) {
    Whole bits = (Whole)x, exponent = (bits >> 23) - 126;
    Lanes m = (Lanes)((bits & 0x7fffff) | 0x3f000000); /* from 0.5 to 1 */
    Whole is_small = m < 0.707106781f;
    Lanes e = __builtin_convertvector(exponent + is_small, Lanes); /* what is true is -1 */
    m = m - 1.0f + choose(is_small, m, (Lanes){});
    Lanes square = m * m, y = m * 7.0376836292e-2f - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * square - e * 2.12194440e-4f - 0.5f * square; /* log 2 in two parts */
    y = m + y + e * 0.693359375f;
    return choose(x == x, y, x);
}

/* Of each query the largest score and the sum of weights -> the logarithm of the sum of e^score. */
static void keep_sums(float *to, const float *most, const float *sums, int64_t count) {
    EACH_VECTOR(i, count) put(to, i, count, FP32, get(most, i, count, FP32) + logarithm(get(sums, i, count, FP32)));
}

static Chance chance_of(const Attention *a, int64_t b, int64_t h, int64_t query) {
    return chance_in(a->seed, (b * a->H + h) * a->T + query, a->dropout);
}

/* Scores, and the gradients of what values were multiplied by -> weights, their gradients, and the mean of these. */
static float raise_back(const Attention *a, float *scores, float *moved, float less, Chance chance, int64_t keys) {
    Lanes sum = {};
    EACH_VECTOR(k, keys) {
        Lanes weight = raised(scores + k, less), gradient = load(moved + k, FP32);
        if (a->dropout > 0) store(moved + k, gradient *= kept(chance, k));
        store(scores + k, weight);
        sum += weight * gradient;
    }
    return total(sum);
}

/* Attention in bf16, where there are instructions for pairs (attention_pairs.c). */
int64_t mypt_attention_room(int64_t positions, int64_t head_width);
int64_t room_in_pairs(int64_t positions, int64_t head_width);
void attend_in_pairs(const Attention *a, void *outputs, float *sums, float *memory);
void attend_back_in_pairs(const Attention *a, const void *output_gradients, const float *sums, void *gradients,
                          float *norm_gradients, float *memory);
