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

/* Scores -> e^(score - less), 0 where the key is hidden; gives their sum. */
static float raise(float *scores, int64_t keys, float less) {
    Lanes sum = {};
    EACH_VECTOR(k, keys) {
        Lanes x = load(scores + k, FP32), raised = choose(x == -INFINITY, (Lanes){}, exponential(x - less));
        store(scores + k, raised);
        sum += raised;
    }
    return total(sum);
}

static Chance chance_of(const Attention *a, int64_t b, int64_t h, int64_t query) {
    return chance_in(a->seed, (b * a->H + h) * a->T + query, a->dropout);
}

/* Weights and the gradients of what they became -> what values were multiplied by, and the gradients of scores. */
static void weigh_back(const Attention *a, float *weights, float *moved, Chance chance, int64_t keys) {
    Lanes sum = {};
    EACH_VECTOR(k, keys) {
        Lanes gradient = load(moved + k, FP32);
        if (a->dropout > 0) gradient *= kept(chance, k);
        store(moved + k, gradient);
        sum += load(weights + k, FP32) * gradient;
    }
    float mean = total(sum);
    EACH_VECTOR(k, keys) {
        Lanes weight = load(weights + k, FP32);
        store(moved + k, weight * (load(moved + k, FP32) - mean));
        if (a->dropout > 0) store(weights + k, weight * kept(chance, k));
    }
}

/* Attention in bf16, where there are instructions for pairs (attention_pairs.c). */
int64_t mypt_attention_room(int64_t positions, int64_t head_width);
int64_t room_in_pairs(int64_t positions, int64_t head_width);
void attend_in_pairs(const Attention *a, void *outputs, float *sums, float *memory);
void attend_back_in_pairs(const Attention *a, const void *output_gradients, const float *sums, void *gradients,
                          float *norm_gradients, float *memory);
