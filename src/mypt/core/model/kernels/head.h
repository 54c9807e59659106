/* The output head and its loss, as they are asked for.
 *
 * Letters: N rows, C width, V vocabulary.
 */
#pragma once
#include "vectors.h"

typedef struct {
    const uint16_t *rows, *weights; /* (N, C), (V, C) */
    const int64_t *targets;         /* (N): negative where there is none */
    float *losses;                  /* (N) */
    uint16_t *row_gradients;        /* (N, C) */
    float *weight_gradients;        /* (V, C) */
    int64_t N, C, V;
    float weight; /* of each loss */
    int32_t threads;
} Head;
