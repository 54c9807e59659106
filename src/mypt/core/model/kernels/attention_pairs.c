/* Attention in bf16, and its gradients, as in attention.c: weights and the gradients of scores are rounded to bf16 too,
 * and so multiplied by pairs (pairs.h). Scores, softmax and all sums are fp32.
 */
#include "pairs.h"
#include "scores.h"

#ifdef HAS_PAIRS

typedef struct {
    float *key_gradients, *value_gradients; /* (D, S) */
    float *scores, *score_gradients;        /* (QUERIES, S) */
    float *exact;                           /* (QUERIES, D) */
    uint32_t *key_rows, *value_rows;        /* (D / TILE, T / 2, TILE): pairs of positions */
    uint32_t *key_pairs, *value_pairs;      /* (T / TILE, D / 2, TILE): pairs of a head's numbers */
    uint32_t *weight_pairs, *moved_pairs;   /* (T / TILE, QUERIES / 2, TILE) */
    uint16_t *moved;                        /* (QUERIES, S) */
    uint16_t *rows;                         /* (T, D) */
    uint16_t *queries, *mixed;              /* (QUERIES, D) */
    uint16_t *turned_queries, *turned_mixed; /* (D, QUERIES) */
    int64_t T, D, S;                        /* as in attention.c */
} Room;

int64_t room_in_pairs(int64_t positions, int64_t head_width) {
    int64_t T = filled_up(positions), D = filled_up(head_width), S = spread(positions);
    return 3 * T * D / 2 + 3 * D * S + 7 * QUERIES * S / 2 + 4 * QUERIES * D;
}

static Room room_in(float *memory, const Attention *a) {
    Room room = {.T = filled_up(a->T), .D = filled_up(a->D), .S = spread(a->T)};
    int64_t of_head = room.T * room.D / 2, of_pairs = room.D * room.S / 2, of_scores = QUERIES * room.S;
    int64_t of_queries = QUERIES * room.D;
    memory += omp_get_thread_num() * mypt_attention_room(a->T, a->D);
    struct {
        void *to;
        int64_t words;
    } parts[] = {
        {&room.key_gradients, 2 * of_pairs},   {&room.value_gradients, 2 * of_pairs},
        {&room.scores, of_scores},             {&room.score_gradients, of_scores},
        {&room.exact, of_queries},             {&room.key_rows, of_head},
        {&room.value_rows, of_head},           {&room.key_pairs, of_pairs},
        {&room.value_pairs, of_pairs},         {&room.weight_pairs, of_scores / 2},
        {&room.moved_pairs, of_scores / 2},    {&room.moved, of_scores / 2},
        {&room.rows, of_head},                 {&room.queries, of_queries / 2},
        {&room.mixed, of_queries / 2},         {&room.turned_queries, of_queries / 2},
        {&room.turned_mixed, of_queries / 2},
    };
    EACH(i, (int64_t)(sizeof parts / sizeof *parts)) {
        memcpy(parts[i].to, &memory, sizeof memory);
        memory += parts[i].words;
    }
    return room;
}

#define VECTORS_AHEAD 16

INLINE void call_for_vector(const Attention *a, const void *memory, int64_t from) {
    for (int64_t i = 0; i < a->D; i += 32) __builtin_prefetch(at(memory, from + i, BF16));
}

/* As `prepare`, in bf16; what goes through fp32 needs room there. */
static void prepare_narrow(const Attention *a, const Room *room, uint16_t *to, int64_t from, const void *norm,
                           int64_t position, float scale) {
    if (norm || a->cosines) {
        prepare(a, room->exact, from, norm, position, scale);
        narrow(to, room->exact, a->D);
    } else {
        const void *x = at(a->inputs, from, BF16);
        EACH_VECTOR(i, a->D) put(to, i, a->D, BF16, get(x, i, a->D, BF16) * scale);
    }
}

/* A head's keys or values -> pairs of positions, and pairs of numbers. */
static void read_head(const Attention *a, const Room *room, int64_t b, int64_t head, const void *norm, int is_key,
                      uint32_t *rows, uint32_t *pairs) {
    int64_t T = room->T, D = room->D;
    if (a->T < T || a->D < D) memset(room->rows, 0, T * D * sizeof(uint16_t));
    EACH(t, a->T) {
        uint16_t *to = room->rows + t * D;
        int64_t from = vector(a, b, t, head);
        call_for_vector(a, a->inputs, vector(a, b, t + VECTORS_AHEAD, head));
        if (is_key && (norm || a->cosines))
            prepare_narrow(a, room, to, from, norm, t, 1);
        else
            memcpy(to, at(a->inputs, from, BF16), a->D * sizeof(uint16_t));
    }
    if (rows) pair_rows(rows, T / 2 * TILE, room->rows, D, T, D);
    if (pairs) pair_columns(pairs, room->rows, T, D);
}

/* Some queries, and their scores with all keys up to the last of them. */
static void read_queries(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, int64_t count) {
    int64_t S = room->S, D = room->D;
    if (count < QUERIES || a->D < D) memset(room->queries, 0, QUERIES * D * sizeof(uint16_t));
    EACH(i, count) {
        int64_t from = vector(a, b, first + i, h);
        call_for_vector(a, a->inputs, vector(a, b, first + i + QUERIES, h));
        prepare_narrow(a, room, room->queries + i * D, from, a->query_norm, first + i, 1 / sqrtf(a->D));
    }
    Left queries = {room->queries, D};
    Right keys = {room->key_pairs, D / 2 * TILE};
    multiply_pairs(room->scores, S, queries, keys, QUERIES, first + QUERIES, D, NEW);
}

static void mix(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, void *outputs, float *sums) {
    int64_t S = room->S, D = room->D, keys = first + QUERIES, count = queries_from(a, first);
    float most[QUERIES], totals[QUERIES];
    read_queries(a, room, b, h, first, count);
    memset(room->moved + count * S, 0, (QUERIES - count) * S * sizeof(uint16_t));
    EACH(i, count) {
        float *scores = room->scores + i * S;
        hide(a, scores, b, first + i, keys);
        uint16_t *weights = room->moved + i * S;
        most[i] = largest_of(scores, keys);
        totals[i] = raise(weights, scores, keys, most[i], BF16);
        if (a->dropout == 0) continue;
        Chance chance = chance_of(a, b, h, first + i);
        EACH_VECTOR(k, keys) put(weights, k, keys, BF16, raised(scores + k, most[i]) * kept(chance, k));
    }
    Left weights = {room->moved, S};
    Right values = {room->value_rows, room->T / 2 * TILE};
    multiply_pairs(room->exact, D, weights, values, QUERIES, D, keys, NEW);
    keep_sums(sums + (b * a->H + h) * a->T + first, most, totals, count);
    EACH(i, count) {
        float share = 1 / totals[i];
        void *to = place(outputs, ((b * a->T + first + i) * a->H + h) * a->D, BF16);
        EACH_VECTOR(j, a->D) put(to, j, a->D, BF16, load(room->exact + i * D + j, FP32) * share);
    }
}

void attend_in_pairs(const Attention *a, void *outputs, float *sums, float *memory) {
#pragma omp parallel num_threads(a->threads)
    {
        Room room = room_in(memory, a);
        int64_t share = a->H / a->G;
        begin_products();
#pragma omp for schedule(dynamic)
        for (int64_t bg = 0; bg < a->B * a->G; bg++) {
            int64_t b = bg / a->G, g = bg % a->G;
            read_head(a, &room, b, a->H + g, a->key_norm, 1, NULL, room.key_pairs);
            read_head(a, &room, b, a->H + a->G + g, NULL, 0, room.value_rows, NULL);
            for (int64_t h = g * share; h < (g + 1) * share; h++)
                for (int64_t first = 0; first < a->T; first += QUERIES) mix(a, &room, b, h, first, outputs, sums);
        }
        end_products();
    }
}

/* What values were multiplied by, of two queries that are next to each other, and the gradients of their scores. */
static void weigh_back(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, int64_t i,
                       const float *sums) {
    int64_t S = room->S, keys = first + QUERIES, count = queries_from(a, first);
    float *weights = room->scores + i * S, *moved = room->score_gradients + i * S, means[2] = {};
    uint32_t *weight_pairs = room->weight_pairs + i / 2 * TILE, *moved_pairs = room->moved_pairs + i / 2 * TILE;
    Chance chances[2] = {};
    EACH_UNROLLED(n, 2) {
        int64_t query = first + i + n;
        if (i + n >= count) {
            memset(weights + n * S, 0, keys * sizeof(float));
            memset(moved + n * S, 0, keys * sizeof(float));
            continue;
        }
        hide(a, weights + n * S, b, query, keys);
        chances[n] = chance_of(a, b, h, query);
        float less = sums[(b * a->H + h) * a->T + query];
        means[n] = raise_back(a, weights + n * S, moved + n * S, less, chances[n], keys);
    }
    EACH_VECTOR(k, keys) {
        Lanes weight[2], gradient[2];
        EACH_UNROLLED(n, 2) {
            weight[n] = load(weights + n * S + k, FP32);
            gradient[n] = weight[n] * (load(moved + n * S + k, FP32) - means[n]);
            if (a->dropout > 0) weight[n] *= kept(chances[n], k);
            put(room->moved + (i + n) * S, k, keys, BF16, gradient[n]);
        }
        *(Bits *)(weight_pairs + k * QUERIES / 2) = paired(weight[0], weight[1]);
        *(Bits *)(moved_pairs + k * QUERIES / 2) = paired(gradient[0], gradient[1]);
    }
}

static void mix_back(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first,
                     const void *output_gradients, const float *sums, void *gradients, float *norm_gradient) {
    int64_t S = room->S, D = room->D, keys = first + QUERIES, count = queries_from(a, first);
    read_queries(a, room, b, h, first, count);
    if (count < QUERIES || a->D < D) memset(room->mixed, 0, QUERIES * D * sizeof(uint16_t));
    EACH(i, count) {
        const void *from = at(output_gradients, ((b * a->T + first + i) * a->H + h) * a->D, BF16);
        call_for_vector(a, output_gradients, ((b * a->T + first + i + QUERIES) * a->H + h) * a->D);
        memcpy(room->mixed + i * D, from, a->D * sizeof(uint16_t));
    }
    Right values = {room->value_pairs, D / 2 * TILE};
    multiply_pairs(room->score_gradients, S, (Left){room->mixed, D}, values, QUERIES, keys, D, NEW);
    for (int64_t i = 0; i < QUERIES; i += 2) weigh_back(a, room, b, h, first, i, sums);
    turn_rows(room->turned_mixed, QUERIES, room->mixed, D, D);
    turn_rows(room->turned_queries, QUERIES, room->queries, D, D);
    Left turned_mixed = {room->turned_mixed, QUERIES}, turned_queries = {room->turned_queries, QUERIES};
    Right weights = {room->weight_pairs, QUERIES / 2 * TILE}, moved = {room->moved_pairs, QUERIES / 2 * TILE};
    Right key_rows = {room->key_rows, room->T / 2 * TILE};
    multiply_pairs(room->value_gradients, S, turned_mixed, weights, D, keys, QUERIES, MORE);
    multiply_pairs(room->key_gradients, S, turned_queries, moved, D, keys, QUERIES, MORE);
    multiply_pairs(room->exact, D, (Left){room->moved, S}, key_rows, QUERIES, D, keys, NEW);
    EACH(i, count) {
        int64_t from = vector(a, b, first + i, h);
        go_back(a, gradients, room->exact + i * D, from, a->query_norm, norm_gradient, first + i, 1 / sqrtf(a->D));
    }
}

/* Gradients of a head's keys and values, which are whole now. */
static void finish_head(const Attention *a, const Room *room, int64_t b, int64_t g, void *gradients, float *of_keys) {
    int64_t D = room->D;
    for (int64_t first = 0; first < a->T; first += QUERIES) {
        int64_t count = queries_from(a, first);
        turn_over(room->exact, D, room->key_gradients + first, room->S, D, QUERIES);
        EACH(i, count) {
            int64_t from = vector(a, b, first + i, a->H + g);
            go_back(a, gradients, room->exact + i * D, from, a->key_norm, of_keys, first + i, 1);
        }
        turn_over(room->exact, D, room->value_gradients + first, room->S, D, QUERIES);
        EACH(i, count) {
            void *to = place(gradients, vector(a, b, first + i, a->H + a->G + g), BF16);
            EACH_VECTOR(j, a->D) put(to, j, a->D, BF16, load(room->exact + i * D + j, FP32));
        }
    }
}

void attend_back_in_pairs(const Attention *a, const void *output_gradients, const float *sums, void *gradients,
                          float *norm_gradients, float *memory) {
#pragma omp parallel num_threads(a->threads)
    {
        Room room = room_in(memory, a);
        int64_t share = a->H / a->G;
        begin_products();
#pragma omp for schedule(dynamic)
        for (int64_t bg = 0; bg < a->B * a->G; bg++) {
            int64_t b = bg / a->G, g = bg % a->G;
            float *of_queries = norm_gradients + bg * 2 * a->D, *of_keys = of_queries + a->D;
            memset(of_queries, 0, 2 * a->D * sizeof(float));
            read_head(a, &room, b, a->H + g, a->key_norm, 1, room.key_rows, room.key_pairs);
            read_head(a, &room, b, a->H + a->G + g, NULL, 0, NULL, room.value_pairs);
            memset(room.key_gradients, 0, room.D * room.S * sizeof(float));
            memset(room.value_gradients, 0, room.D * room.S * sizeof(float));
            for (int64_t h = g * share; h < (g + 1) * share; h++)
                for (int64_t first = 0; first < a->T; first += QUERIES)
                    mix_back(a, &room, b, h, first, output_gradients, sums, gradients, of_queries);
            finish_head(a, &room, b, g, gradients, of_keys);
        }
        end_products();
    }
}
#endif
