/* The softmax of a row of scores in fp32; whole vectors. */
#pragma once
#include "vectors.h"

static float largest_of(const float *scores, int64_t count) {
    Lanes most = (Lanes){} - INFINITY;
    EACH_VECTOR(k, count) most = larger(load(scores + k, FP32), most);
    return largest(most);
}

/* e^(score - less), 0 where the score is -INFINITY. */
INLINE Lanes raised(const float *scores, float less) {
    Lanes x = load(scores, FP32);
    return choose(x == -INFINITY, (Lanes){}, exponential(x - less));
}

/* Scores -> weights of some kind before they are divided by their sum, which is given. */
INLINE float raise(void *weights, const float *scores, int64_t count, float less, int64_t kind) {
    Lanes sum = {};
    EACH_VECTOR(k, count) {
        Lanes weight = raised(scores + k, less);
        put(weights, k, count, kind, weight);
        sum += weight;
    }
    return total(sum);
}
