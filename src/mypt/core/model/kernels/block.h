/* A block of the model (core/model/layers.py), its parts by name, and what it keeps for its way back.
 *
 * Letters: B batch, T positions, N both of them, C width, W that of queries, keys and values together, I inner width,
 * H heads of queries, G heads of keys and values, D head width.
 */
#pragma once
#include "norm.h"
#include "scores.h"

typedef struct {
    void *attention_norm, *attention_norm_bias; /* (C) */
    void *heads, *heads_bias;                   /* (W, C), (W) */
    void *query_norm, *key_norm;                /* (D) */
    void *output, *output_bias;                 /* (C, C), (C) */
    void *mlp_norm, *mlp_norm_bias;             /* (C) */
    void *gate, *up, *up_bias;                  /* (I, C), the same, (I) */
    void *down, *down_bias;                     /* (C, I), (C) */
} Parts;                                        /* weights or their gradients; what a family has not is none */

typedef struct {
    Parts weights;
    const uint16_t *inputs;    /* (N, C) */
    uint16_t *outputs;         /* (N, C) */
    const float *cosines, *sines;
    const int64_t *documents;
    /* kept */
    float *means, *factors;    /* (2, N): of both norms; no means are of RMSNorm */
    uint16_t *heads, *mixed;   /* (N, W), (N, C) */
    float *sums;               /* (B, H, T) */
    uint16_t *middle;          /* (N, C): between attention and MLP */
    uint16_t *gates, *ups;     /* (N, I) */
    int64_t B, T, C, I, H, G, D, activation;
    float eps, head_eps;
    int32_t threads;
} Block;
