/* Scores of one query with all keys -> weights, and back. */
#pragma once
#include "chance.h"
#include "heads.h"

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
    for (int64_t k = query + 1; k < keys; k++) scores[k] = -INFINITY;
    if (!a->documents) return;
    const int64_t *documents = a->documents + b * a->T;
    EACH(k, query + 1) if (documents[k] != documents[query]) scores[k] = -INFINITY;
}

static float largest_of(const float *scores, int64_t keys) {
    Lanes most = (Lanes){} - INFINITY;
    EACH_VECTOR(k, keys) {
        Lanes x = load(scores + k, FP32);
        most = choose(x > most, x, most);
    }
    return largest(most);
}

/* e^(score - less), 0 where the key is hidden. */
INLINE Lanes raised(const float *scores, float less) {
    Lanes x = load(scores, FP32);
    return choose(x == -INFINITY, (Lanes){}, exponential(x - less));
}

/* Scores -> weights of some kind before they are divided by their sum, which is given. */
INLINE float raise(void *weights, const float *scores, int64_t keys, float less, int64_t kind) {
    Lanes sum = {};
    EACH_VECTOR(k, keys) {
        Lanes weight = raised(scores + k, less);
        put(weights, k, keys, kind, weight);
        sum += weight;
    }
    return total(sum);
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
