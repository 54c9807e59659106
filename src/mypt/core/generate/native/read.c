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
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define WHOLE_ROW 16               /* rows of activations are multiples of this, as layout.py knows */
#define MOST_TOKENS 32             /* in one call, as reader.py knows */
#define ROWS_AT_ONCE 4             /* of a matrix, times */
#define TOKENS_AT_ONCE (LANES / 4) /* so many tokens: their sums fill half of the registers */
#define ROWS_AHEAD 8               /* that are fetched from memory while these are summed */
#define KEYS_AT_ONCE 4             /* of a head */
#define VECTORS_AT_ONCE 4          /* of its values */

#define INLINE static inline __attribute__((always_inline))
#define EACH(index, count) for (int64_t index = 0; index < (count); index++)
#define EACH_UNROLLED(index, count) _Pragma("GCC unroll 4") EACH(index, count)

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

enum Kind { FP32, BF16, INT8 };
enum Activation { GELU, RELU, SWIGLU };
enum Then { SET, ADD, ACTIVATE, GATE };

typedef struct {
    const void *weight;        /* (rows, columns) */
    const float *scale, *bias; /* (rows), or none */
    int64_t rows, columns, kind;
} Matrix;

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

typedef struct {
    float *stream, *normed, *heads, *mixed, *inner; /* a row for each token */
    float *scores;                                  /* a row for each thread */
} Work;

/* Numbers in memory */

INLINE int64_t padded(int64_t count) { return (count + WHOLE_ROW - 1) / WHOLE_ROW * WHOLE_ROW; }

INLINE int64_t size_of(int64_t kind) { return kind == FP32 ? 4 : kind == BF16 ? 2 : 1; }

INLINE const void *at(const void *memory, int64_t index, int64_t kind) {
    return (const char *)memory + index * size_of(kind);
}

INLINE Lanes load(const void *from, int64_t kind) {
    if (kind == FP32) return *(const Lanes *)from;
    if (kind == BF16) return (Lanes)(__builtin_convertvector(*(const Halves *)from, Bits) << 16);
#ifdef __AVX512F__
    return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from)));
#else
    return (Lanes)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(from)));
#endif
}

/* Fewer numbers than a vector has, and then zeros. */
INLINE Lanes load_part(const void *from, int64_t count, int64_t kind) {
    char whole[4 * LANES] = {0};
    memcpy(whole, from, count * size_of(kind));
    return load(whole, kind);
}

INLINE void store(float *to, Lanes lanes) { *(Lanes *)to = lanes; }

INLINE void store_in_cache(void *to, const float *from, int64_t count, int64_t kind) {
    if (kind == FP32) {
        memcpy(to, from, count * sizeof(float));
        return;
    }
    EACH(i, count) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to the nearest, ties to even */
        int is_nan = (bits & 0x7fffffff) > 0x7f800000;                 /* which rounding might make infinite */
        ((uint16_t *)to)[i] = is_nan ? 0x7fc0 : rounded;
    }
}

/* Functions of vectors; what is no number stays none */

/* Sums of quarters. */
INLINE __m128 folded(Lanes lanes) {
#ifdef __AVX512F__
    __m512 all = (__m512)lanes;
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
#else
    __m256 half = (__m256)lanes;
#endif
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

INLINE float total(Lanes lanes) {
    __m128 four = folded(lanes), two = _mm_hadd_ps(four, four);
    return _mm_cvtss_f32(_mm_hadd_ps(two, two));
}

/* The totals of four vectors, summed in the same order. */
INLINE __m128 totals(const Lanes *four) {
    return _mm_hadd_ps(_mm_hadd_ps(folded(four[0]), folded(four[1])), _mm_hadd_ps(folded(four[2]), folded(four[3])));
}

INLINE Lanes choose(Whole where, Lanes a, Lanes b) { return (Lanes)((where & (Whole)a) | (~where & (Whole)b)); }

/* e^x: 2^n times a polynomial of what n leaves (Cephes), to about one unit in the last place. */
INLINE Lanes exponential(Lanes x) {
    x = choose(x > 88.0f, (Lanes){} + 88.0f, x);
    x = choose(x < -87.0f, (Lanes){} - 87.0f, x);
    Lanes n = x * 1.44269504f + 12582912.0f; /* 1.5 x 2^23: numbers of this size have no fraction */
    n -= 12582912.0f;
    Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f; /* log 2 in two parts */
    Lanes y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * (Lanes)((__builtin_convertvector(n, Whole) + 127) << 23);
}

INLINE Lanes activated(Lanes x, int64_t activation) {
    if (activation == RELU) return choose(x < 0.0f, (Lanes){}, x);
    Lanes slope = x;
    if (activation == GELU) slope = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi): the tanh form */
    return x / (1.0f + exponential(-slope));
}

/* Products */

/* Some rows of a matrix times some inputs: sums[n * LANES + r]. */
INLINE void tile(const Matrix *m, int64_t row, int64_t rows, const float *x, int64_t count, float *sums, int64_t kind) {
    int64_t columns = m->columns, whole = columns / LANES * LANES, width = padded(columns);
    const void *weights = at(m->weight, row * columns, kind);
    Lanes sum[TOKENS_AT_ONCE][ROWS_AT_ONCE];
    EACH_UNROLLED(r, rows) EACH_UNROLLED(n, count) sum[n][r] = (Lanes){};
    for (int64_t k = 0; k < whole; k += LANES) {
        Lanes weight[ROWS_AT_ONCE];
        EACH_UNROLLED(r, rows) {
            weight[r] = load(at(weights, r * columns + k, kind), kind);
            if (count == 1) __builtin_prefetch(at(weights, (r + ROWS_AHEAD) * columns + k, kind));
        }
        EACH_UNROLLED(n, count) {
            Lanes input = load(x + n * width + k, FP32);
            EACH_UNROLLED(r, rows) sum[n][r] += weight[r] * input;
        }
    }
    if (whole < columns)
        EACH_UNROLLED(r, rows) {
            Lanes weight = load_part(at(weights, r * columns + whole, kind), columns - whole, kind);
            EACH_UNROLLED(n, count) sum[n][r] += weight * load(x + n * width + whole, FP32);
        }
    EACH_UNROLLED(n, count)
        if (rows == ROWS_AT_ONCE) _mm_storeu_ps(sums + n * LANES, totals(sum[n]));
        else EACH_UNROLLED(r, rows) sums[n * LANES + r] = total(sum[n][r]);
}

INLINE void rows_of_tiles(const Matrix *m, int64_t row, int64_t rows, const float *x, int64_t count, float *sums,
                          int64_t kind) {
    int64_t r = 0;
    for (; r + ROWS_AT_ONCE <= rows; r += ROWS_AT_ONCE) tile(m, row + r, ROWS_AT_ONCE, x, count, sums + r, kind);
    for (; r < rows; r++) tile(m, row + r, 1, x, count, sums + r, kind);
}

/* Up to LANES rows times one group of inputs after the other, which then stays in the nearest cache. */
INLINE void tiles(const Matrix *m, int64_t row, const float *x, int64_t count, float *sums, int64_t kind) {
    int64_t width = padded(m->columns), rows = m->rows - row < LANES ? m->rows - row : LANES, n = 0;
    if (rows < LANES) memset(sums, 0, count * LANES * sizeof(float));
    for (; n + TOKENS_AT_ONCE <= count; n += TOKENS_AT_ONCE)
        rows_of_tiles(m, row, rows, x + n * width, TOKENS_AT_ONCE, sums + n * LANES, kind);
    for (; n < count; n++) rows_of_tiles(m, row, rows, x + n * width, 1, sums + n * LANES, kind);
}

/* The matrix times each input, with its bias; then it is set, added, activated, or gated by what `out` holds. */
static void product(const Matrix *m, const float *x, int64_t count, float *out, enum Then then, int64_t activation) {
    int64_t stride = padded(m->rows);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < m->rows; row += LANES) {
        float sums[MOST_TOKENS * LANES] __attribute__((aligned(64)));
        if (m->kind == FP32) tiles(m, row, x, count, sums, FP32);
        if (m->kind == BF16) tiles(m, row, x, count, sums, BF16);
        if (m->kind == INT8) tiles(m, row, x, count, sums, INT8);
        EACH(n, count) {
            float *place = out + n * stride + row;
            Lanes y = load(sums + n * LANES, FP32);
            if (m->scale) y *= load(m->scale + row, FP32);
            if (m->bias) y += load(m->bias + row, FP32);
            if (then == ADD) y += load(place, FP32);
            if (then == ACTIVATE) y = activated(y, activation);
            if (then == GATE) y *= activated(load(place, FP32), activation);
            store(place, y);
        }
    }
}

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
    float scale = 1 / sqrtf(square / width + norm->eps);
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

/* How well some neighbouring keys fit a query, before it is scaled. */
INLINE void fit(const float *query, const void *keys, int64_t count, int64_t D, float *scores, int64_t kind) {
    int64_t whole = D / LANES * LANES, rest = D - whole;
    Lanes sum[KEYS_AT_ONCE];
    EACH_UNROLLED(t, count) sum[t] = (Lanes){};
    for (int64_t d = 0; d < whole; d += LANES) {
        Lanes part = load(query + d, FP32);
        EACH_UNROLLED(t, count) sum[t] += part * load(at(keys, t * D + d, kind), kind);
    }
    if (rest) {
        Lanes part = load_part(query + whole, rest, FP32);
        EACH_UNROLLED(t, count) sum[t] += part * load_part(at(keys, t * D + whole, kind), rest, kind);
    }
    if (count == KEYS_AT_ONCE) _mm_storeu_ps(scores, totals(sum));
    else EACH_UNROLLED(t, count) scores[t] = total(sum[t]);
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
    for (; t + KEYS_AT_ONCE <= seen; t += KEYS_AT_ONCE)
        fit(query, at(keys, t * D, kind), KEYS_AT_ONCE, D, scores + t, kind);
    for (; t < seen; t++) fit(query, at(keys, t * D, kind), 1, D, scores + t, kind);
    for (t = seen; t < padded(seen); t++) scores[t] = -INFINITY;
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
 */
void mypt_read(const Model *model, const Cache *cache, const Work *work, int64_t count, const int64_t *ids,
               const int64_t *rows, const int64_t *places, float *logits, int32_t threads) {
    int64_t C = model->width, is_gated = model->activation == SWIGLU, activation = model->activation;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        EACH(n, count) embed(model, ids[n], places[n], work->stream + n * padded(C));
        EACH(index, model->layer_count) {
            const Layer *layer = model->layers + index;
            norm_each(&layer->attention_norm, work->stream, C, count, work->normed);
            product(&layer->query_key_value, work->normed, count, work->heads, SET, activation);
            attention(model, layer, cache, index, count, rows, places, work);
            product(&layer->output, work->mixed, count, work->stream, ADD, activation);
            norm_each(&layer->mlp_norm, work->stream, C, count, work->normed);
            if (is_gated) product(&layer->gate, work->normed, count, work->inner, SET, activation);
            product(&layer->up, work->normed, count, work->inner, is_gated ? GATE : ACTIVATE, activation);
            product(&layer->down, work->inner, count, work->stream, ADD, activation);
        }
        if (logits) {
            norm_each(&model->final_norm, work->stream, C, count, work->normed);
            product(&model->head, work->normed, count, logits, SET, activation);
        }
    }
}
