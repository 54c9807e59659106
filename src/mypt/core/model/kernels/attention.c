/* Attention, and its gradients. The keys, values and scores of a head stay near while its queries pass, some at a time;
 * scores are not kept, but computed again on the way back (Dao et al., 2022). All in fp32, whatever the inputs are.
 *
 * A thread takes all queries that share a head of keys, so what is added up is added up in one order.
 */
#include "scores.h"

typedef struct {
    float *keys, *values, *key_gradients, *value_gradients; /* (T, D) */
    float *turned_keys, *turned_values;                    /* (D, S) */
    float *queries, *query_gradients, *mixed;              /* (QUERIES, D) */
    float *scores, *score_gradients;                       /* (QUERIES, S) */
    int64_t T, D;                                          /* filled up */
    int64_t S;                                             /* `spread` of T */
} Room;

static int64_t room_of(int64_t positions, int64_t head_width) {
    int64_t D = filled_up(head_width);
    return 4 * filled_up(positions) * D + 2 * (D + QUERIES) * spread(positions) + 3 * QUERIES * D;
}

/* How many numbers of room a thread needs. */
int64_t mypt_attention_room(int64_t positions, int64_t head_width) {
    int64_t room = room_of(positions, head_width);
#ifdef HAS_PAIRS
    int64_t other = room_in_pairs(positions, head_width);
    if (other > room) room = other;
#endif
    return room;
}

static float *take(float **memory, int64_t count) {
    float *taken = *memory;
    *memory += count;
    return taken;
}

static Room room_in(float *memory, const Attention *a) {
    Room room = {.T = filled_up(a->T), .D = filled_up(a->D), .S = spread(a->T)};
    memory += omp_get_thread_num() * mypt_attention_room(a->T, a->D);
    float **of_head[] = {&room.keys, &room.values, &room.key_gradients, &room.value_gradients};
    float **of_queries[] = {&room.queries, &room.query_gradients, &room.mixed};
    EACH(i, 4) *of_head[i] = take(&memory, room.T * room.D);
    EACH(i, 3) *of_queries[i] = take(&memory, QUERIES * room.D);
    room.turned_keys = take(&memory, room.D * room.S), room.turned_values = take(&memory, room.D * room.S);
    room.scores = take(&memory, QUERIES * room.S), room.score_gradients = take(&memory, QUERIES * room.S);
    return room;
}

static void clear(float *numbers, int64_t count) { memset(numbers, 0, count * sizeof(float)); }

static void read_keys(const Attention *a, const Room *room, int64_t b, int64_t g) {
    int64_t T = room->T, D = room->D;
    clear(room->keys, T * D);
    clear(room->values, T * D);
    EACH(t, a->T) {
        prepare(a, room->keys + t * D, vector(a, b, t, a->H + g), a->key_norm, t, 1);
        const void *value = at(a->inputs, vector(a, b, t, a->H + a->G + g), a->kind);
        EACH_VECTOR(i, a->D) put(room->values + t * D, i, a->D, FP32, get(value, i, a->D, a->kind));
    }
    turn_over(room->turned_keys, room->S, room->keys, D, T, D);
}

/* Some queries, and their scores with all keys up to the last of them. */
static void read_queries(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, int64_t count) {
    int64_t S = room->S, D = room->D;
    clear(room->queries, QUERIES * D);
    EACH(i, count) {
        prepare(a, room->queries + i * D, vector(a, b, first + i, h), a->query_norm, first + i, 1 / sqrtf(a->D));
    }
    multiply(room->scores, S, (Matrix){room->queries, D, 1}, room->turned_keys, S, QUERIES, first + QUERIES, a->D, NEW);
}

static void mix(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, void *outputs, float *sums) {
    int64_t S = room->S, D = room->D, keys = first + QUERIES, count = queries_from(a, first);
    float most[QUERIES], totals[QUERIES];
    read_queries(a, room, b, h, first, count);
    EACH(i, count) {
        float *scores = room->scores + i * S;
        hide(a, scores, b, first + i, keys);
        most[i] = largest_of(scores, keys);
        totals[i] = raise(scores, scores, keys, most[i], FP32);
        if (a->dropout == 0) continue;
        Chance chance = chance_of(a, b, h, first + i);
        EACH_VECTOR(k, keys) store(scores + k, load(scores + k, FP32) * kept(chance, k));
    }
    multiply(room->mixed, D, (Matrix){room->scores, S, 1}, room->values, D, QUERIES, D, keys, NEW);
    keep_sums(sums + (b * a->H + h) * a->T + first, most, totals, count);
    EACH(i, count) {
        float share = 1 / totals[i];
        void *to = place(outputs, ((b * a->T + first + i) * a->H + h) * a->D, a->kind);
        EACH_VECTOR(j, a->D) put(to, j, a->D, a->kind, load(room->mixed + i * D + j, FP32) * share);
    }
}

/* outputs (B, T, H, D), and the logarithms of sums (B, H, T) for the way back */
void mypt_attend(const Attention *a, void *outputs, float *sums, float *memory) {
#ifdef HAS_PAIRS
    if (a->kind == BF16) return attend_in_pairs(a, outputs, sums, memory);
#endif
#pragma omp parallel for schedule(dynamic) num_threads(a->threads)
    for (int64_t bg = 0; bg < a->B * a->G; bg++) {
        Room room = room_in(memory, a);
        int64_t b = bg / a->G, g = bg % a->G, share = a->H / a->G;
        read_keys(a, &room, b, g);
        for (int64_t h = g * share; h < (g + 1) * share; h++)
            for (int64_t first = 0; first < a->T; first += QUERIES) mix(a, &room, b, h, first, outputs, sums);
    }
}

/* Scores of a query, and the gradients of what values were multiplied by -> the latter, and the gradients of scores. */
static void weigh_back(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, int64_t i,
                       const float *sums) {
    float *weights = room->scores + i * room->S, *moved = room->score_gradients + i * room->S;
    int64_t query = first + i, keys = first + QUERIES;
    Chance chance = chance_of(a, b, h, query);
    hide(a, weights, b, query, keys);
    float mean = raise_back(a, weights, moved, sums[(b * a->H + h) * a->T + query], chance, keys);
    EACH_VECTOR(k, keys) {
        Lanes weight = load(weights + k, FP32);
        store(moved + k, weight * (load(moved + k, FP32) - mean));
        if (a->dropout > 0) store(weights + k, weight * kept(chance, k));
    }
}

static void mix_back(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first,
                     const void *output_gradients, const float *sums, void *gradients, float *norm_gradient) {
    int64_t S = room->S, D = room->D, keys = first + QUERIES, count = queries_from(a, first);
    read_queries(a, room, b, h, first, count);
    clear(room->mixed, QUERIES * D);
    EACH(i, count) {
        const void *from = at(output_gradients, ((b * a->T + first + i) * a->H + h) * a->D, a->kind);
        EACH_VECTOR(j, a->D) put(room->mixed + i * D, j, a->D, FP32, get(from, j, a->D, a->kind));
    }
    Matrix weights = {room->scores, 1, S}, moved = {room->score_gradients, S, 1}, moved_over = {moved.numbers, 1, S};
    multiply(room->score_gradients, S, (Matrix){room->mixed, D, 1}, room->turned_values, S, QUERIES, keys, a->D, NEW);
    EACH(i, count) weigh_back(a, room, b, h, first, i, sums);
    multiply(room->value_gradients, D, weights, room->mixed, D, keys, D, QUERIES, MORE);
    multiply(room->query_gradients, D, moved, room->keys, D, QUERIES, D, keys, NEW);
    multiply(room->key_gradients, D, moved_over, room->queries, D, keys, D, QUERIES, MORE);
    EACH(i, count) {
        float *gradient = room->query_gradients + i * D;
        int64_t from = vector(a, b, first + i, h);
        go_back(a, gradients, gradient, from, a->query_norm, norm_gradient, first + i, 1 / sqrtf(a->D));
    }
}

/* gradients of outputs -> of inputs, and of both norms for each head of keys (B, G, 2, D), to be added up */
void mypt_attend_back(const Attention *a, const void *output_gradients, const float *sums, void *gradients,
                      float *norm_gradients, float *memory) {
#ifdef HAS_PAIRS
    if (a->kind == BF16) return attend_back_in_pairs(a, output_gradients, sums, gradients, norm_gradients, memory);
#endif
#pragma omp parallel for schedule(dynamic) num_threads(a->threads)
    for (int64_t bg = 0; bg < a->B * a->G; bg++) {
        Room room = room_in(memory, a);
        int64_t b = bg / a->G, g = bg % a->G, share = a->H / a->G;
        float *of_queries = norm_gradients + bg * 2 * a->D, *of_keys = of_queries + a->D;
        clear(of_queries, 2 * a->D);
        read_keys(a, &room, b, g);
        turn_over(room.turned_values, room.S, room.values, room.D, room.T, room.D);
        clear(room.key_gradients, room.T * room.D);
        clear(room.value_gradients, room.T * room.D);
        for (int64_t h = g * share; h < (g + 1) * share; h++)
            for (int64_t first = 0; first < a->T; first += QUERIES)
                mix_back(a, &room, b, h, first, output_gradients, sums, gradients, of_queries);
        EACH(t, a->T) {
            float *gradient = room.key_gradients + t * room.D;
            go_back(a, gradients, gradient, vector(a, b, t, a->H + g), a->key_norm, of_keys, t, 1);
            void *to = place(gradients, vector(a, b, t, a->H + a->G + g), a->kind);
            EACH_VECTOR(i, a->D) put(to, i, a->D, a->kind, load(room.value_gradients + t * room.D + i, FP32));
        }
    }
}
