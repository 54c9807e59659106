/* Tokens -> logits: the GPT of core/model on a CPU, all layers in one call.
 *
 *     embed -> each layer: norm, query key value, attend, output, norm, up, down -> norm, head
 *
 * The model's matrices stay where they are, in fp32, bf16, or int8 with a scale for each row; activations and sums are
 * in fp32. Each sum is taken in one order, so a token has the same bits alone, among others, and within a prompt.
 *
 * Numbers are worked on LANES at a time. Rows of activations, biases and scales end in a whole vector; matrices do not.
 *
 * Letters: C width, D head width, H heads of queries, G heads of keys and values.
 */
#include "products.h"

#define VECTORS_AT_ONCE 4 /* of the values of a head */

typedef struct {
    const float *weight, *bias; /* no bias: none */
    float eps;
    int32_t has_mean; /* LayerNorm subtracts it, RMSNorm does not */
} Norm;

typedef struct {
    Norm attention_norm, query_norm, key_norm, mlp_norm;
    Matrix query_key_value, output, gate, up, down;
} Layer;

typedef struct {
    int64_t width, heads, kv_heads, head_width, layer_count, activation;
    Matrix tokens, positions, head;
    const float *cosines, *sines; /* (positions, D / 2); none where positions are learned */
    Norm final_norm;
    const Layer *layers;
} Model;

typedef struct {
    void *memory; /* (layer, 2, rows, G, positions, D) */
    int64_t rows, positions, kind;
} Cache;

/* Layers */

static void embed(const Model *model, int64_t id, int64_t place, float *stream) {
    const Matrix *tokens = &model->tokens, *positions = &model->positions;
    int64_t C = model->width;
    for (int64_t c = 0; c < C; c += LANES) {
        int64_t count = C - c < LANES ? C - c : LANES;
        Lanes x = load_part(at(tokens->weight, id * C + c, tokens->kind), count, tokens->kind);
        if (tokens->scale) x *= tokens->scale[id];
        if (positions->weight)
            x += load_part(at(positions->weight, place * C + c, positions->kind), count, positions->kind);
        store(stream + c, x);
    }
}

static void norm(const Norm *norm, const float *x, int64_t width, float *out) {
    int64_t whole = width / LANES * LANES, rest = width - whole;
    Lanes last = load_part(x + whole, rest, FP32), sum = last, squares = {};
    for (int64_t k = 0; k < whole; k += LANES) sum += load(x + k, FP32);
    float mean = norm->has_mean ? total(sum) / width : 0;
    for (int64_t k = 0; k < whole; k += LANES) {
        Lanes apart = load(x + k, FP32) - mean;
        squares += apart * apart;
    }
    float square = total(squares);
    EACH(k, rest) square += (last[k] - mean) * (last[k] - mean);
    float scale = square < INFINITY ? 1 / sqrtf(square / width + norm->eps) : NAN; /* not zeros, which are numbers */
    EACH(k, width) out[k] = (x[k] - mean) * scale * norm->weight[k] + (norm->bias ? norm->bias[k] : 0);
}

static void norm_each(const Norm *each, const float *stream, int64_t width, int64_t count, float *normed) {
#pragma omp for schedule(static)
    EACH(n, count) norm(each, stream + n * padded(width), width, normed + n * padded(width));
}

/* Rotary positions: number p of the first half and number p of the second are a pair. */
static void turn(float *head, const float *cosines, const float *sines, int64_t pairs) {
    EACH(p, pairs) {
        float first = head[p], second = head[p + pairs];
        head[p] = first * cosines[p] - second * sines[p];
        head[p + pairs] = second * cosines[p] + first * sines[p];
    }
}

/* How well LANES neighbouring keys fit a query, before it is scaled; or fewer, and then zeros. */
INLINE Lanes fit(const float *query, const void *keys, int64_t count, int64_t D, int64_t kind) {
    int64_t whole = D / LANES * LANES, rest = D - whole;
    Lanes sums[LANES];
    EACH_UNROLLED(t, LANES) sums[t] = (Lanes){};
    for (int64_t d = 0; d < whole; d += LANES) {
        Lanes part = load(query + d, FP32);
        EACH_UNROLLED(t, LANES) if (t < count) sums[t] += part * load(at(keys, t * D + d, kind), kind);
    }
    if (rest) {
        Lanes part = load_part(query + whole, rest, FP32);
        EACH_UNROLLED(t, LANES) if (t < count) sums[t] += part * load_part(at(keys, t * D + whole, kind), rest, kind);
    }
    return totals(sums, FP32);
}

/* Some neighbouring vectors of what is mixed from the values; or the last one, of `rest` numbers. */
INLINE void mix(const float *weights, float all, const void *values, int64_t seen, int64_t D, int64_t vectors,
                int64_t rest, float *mixed, int64_t kind) {
    Lanes sum[VECTORS_AT_ONCE];
    EACH_UNROLLED(v, vectors) sum[v] = (Lanes){};
    EACH(t, seen) EACH_UNROLLED(v, vectors) {
        const void *value = at(values, t * D + v * LANES, kind);
        sum[v] += weights[t] * (rest ? load_part(value, rest, kind) : load(value, kind));
    }
    EACH_UNROLLED(v, vectors) {
        sum[v] /= all;
        memcpy(mixed + v * LANES, sum + v, (rest ? rest : LANES) * sizeof(float));
    }
}

/* One head of one token, which sees `seen` positions. */
INLINE void attend(const float *query, const void *keys, const void *values, int64_t seen, int64_t D, float *scores,
                   float *mixed, int64_t kind) {
    float scale = 1 / sqrtf(D), largest = -INFINITY;
    Lanes sums = {};
    int64_t t = 0, d = 0;
    for (; t + LANES <= seen; t += LANES) store(scores + t, fit(query, at(keys, t * D, kind), LANES, D, kind));
    if (t < seen) store(scores + t, fit(query, at(keys, t * D, kind), seen - t, D, kind));
    for (t = seen; t % LANES; t++) scores[t] = -INFINITY;
    EACH(i, seen) if (scores[i] > largest) largest = scores[i];
    for (t = 0; t < seen; t += LANES) {
        Lanes weights = exponential((load(scores + t, FP32) - largest) * scale);
        sums += weights;
        store(scores + t, weights);
    }
    float all = total(sums);
    for (; d + VECTORS_AT_ONCE * LANES <= D; d += VECTORS_AT_ONCE * LANES)
        mix(scores, all, at(values, d, kind), seen, D, VECTORS_AT_ONCE, 0, mixed + d, kind);
    for (; d + 2 * LANES <= D; d += 2 * LANES) mix(scores, all, at(values, d, kind), seen, D, 2, 0, mixed + d, kind);
    for (; d + LANES <= D; d += LANES) mix(scores, all, at(values, d, kind), seen, D, 1, 0, mixed + d, kind);
    if (d < D) mix(scores, all, at(values, d, kind), seen, D, 1, D - d, mixed + d, kind);
}

/* Queries, keys and values of all tokens -> what each token takes from the positions it sees; keys and values stay. */
static void attention(const Model *model, const Layer *layer, const Cache *cache, int64_t index, int64_t count,
                      const int64_t *rows, const int64_t *places, const Work *work) {
    int64_t D = model->head_width, H = model->heads, G = model->kv_heads, kind = cache->kind;
    int64_t heads = padded((H + 2 * G) * D), all = cache->rows * G * cache->positions * D;
    char *keys = (char *)at(cache->memory, 2 * index * all, kind), *values = (char *)at(keys, all, kind);
#pragma omp for schedule(static) collapse(2)
    EACH(n, count) EACH(h, H + 2 * G) {
        float *head = work->heads + n * heads + h * D;
        if (model->cosines && h < H + G) {
            norm(h < H ? &layer->query_norm : &layer->key_norm, head, D, head);
            turn(head, model->cosines + places[n] * D / 2, model->sines + places[n] * D / 2, D / 2);
        }
        if (h < H) continue;
        int64_t to = ((rows[n] * G + (h - H) % G) * cache->positions + places[n]) * D;
        store_in_cache((char *)at(h < H + G ? keys : values, to, kind), head, D, kind);
    }
#pragma omp for schedule(static) collapse(2)
    EACH(n, count) EACH(h, H) {
        int64_t from = (rows[n] * G + h / (H / G)) * cache->positions * D, seen = places[n] + 1;
        const void *own_keys = at(keys, from, kind), *own_values = at(values, from, kind);
        const float *query = work->heads + n * heads + h * D;
        float *mixed = work->mixed + n * padded(H * D) + h * D;
        float *scores = work->scores + omp_get_thread_num() * padded(cache->positions);
        if (kind == FP32) attend(query, own_keys, own_values, seen, D, scores, mixed, FP32);
        else attend(query, own_keys, own_values, seen, D, scores, mixed, BF16);
    }
}

/* Read tokens, each at its place in its row of the cache; several of one row stand in the order of their places.
 * Logits, (count, vocabulary up to a whole row), are those of the token after each; none are computed for nowhere.
 * Gives whether they are numbers.
 */
int32_t mypt_read(const Model *model, const Cache *cache, Work *work, int64_t count, const int64_t *ids,
                  const int64_t *rows, const int64_t *places, float *logits, int32_t threads) {
    int64_t C = model->width, is_gated = model->activation == SWIGLU, activation = model->activation;
    work->is_finite = 1;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        EACH(n, count) embed(model, ids[n], places[n], work->stream + n * padded(C));
        EACH(index, model->layer_count) {
            const Layer *layer = model->layers + index;
            norm_each(&layer->attention_norm, work->stream, C, count, work->normed);
            product(work, &layer->query_key_value, work->normed, count, work->heads, SET, activation);
            attention(model, layer, cache, index, count, rows, places, work);
            product(work, &layer->output, work->mixed, count, work->stream, ADD, activation);
            norm_each(&layer->mlp_norm, work->stream, C, count, work->normed);
            if (is_gated) product(work, &layer->gate, work->normed, count, work->inner, SET, activation);
            product(work, &layer->up, work->normed, count, work->inner, is_gated ? GATE : ACTIVATE, activation);
            product(work, &layer->down, work->inner, count, work->stream, ADD, activation);
        }
        if (logits) {
            norm_each(&model->final_norm, work->stream, C, count, work->normed);
            product(work, &model->head, work->normed, count, logits, CHECK, activation);
        }
    }
    return work->is_finite;
}
