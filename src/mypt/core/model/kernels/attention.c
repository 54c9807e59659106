/* Attention, and its gradients. The keys, values and scores of a head stay near while its queries pass, some at a time;
 * scores are not kept, but computed again on the way back (Dao et al., 2022). All in fp32, whatever the inputs are.
 *
 * A thread takes all queries that share a head of keys, so what is added up is added up in one order.
 */
#include "heads.h"

#define QUERIES 32 /* at a time */
_Static_assert(MULTIPLE % QUERIES == 0, "the last ones end where filled up rows do");

typedef struct {
    float *keys, *values, *key_gradients, *value_gradients; /* (T, D) */
    float *turned_keys, *turned_values;                    /* (D, S) */
    float *queries, *query_gradients, *mixed;              /* (QUERIES, D) */
    float *scores, *score_gradients;                       /* (QUERIES, S) */
    int64_t T, D;                                          /* filled up */
    int64_t S;                                             /* T and some more, for powers of two share few cache lines */
} Room;

INLINE int64_t spread(int64_t positions) { return filled_up(positions) + LANES; }

/* How many numbers of room a thread needs. */
int64_t mypt_attention_room(int64_t positions, int64_t head_width) {
    int64_t D = filled_up(head_width);
    return 4 * filled_up(positions) * D + 2 * (D + QUERIES) * spread(positions) + 3 * QUERIES * D;
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
    turn_over(room->turned_keys, room->S, room->keys, T, D);
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

/* What a weight is multiplied by: 0 for a share of them, by chance, and more than 1 for the rest. The chance is a hash
 * (MurmurHash3's last steps) of seed and place, so it is found again on the way back. */
typedef struct {
    uint32_t row, least;
    float factor;
} Chance;

static Chance chance_of(const Attention *a, int64_t b, int64_t h, int64_t query) {
    uint64_t x = a->seed + 0x9e3779b97f4a7c15u * (uint64_t)((b * a->H + h) * a->T + query + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u; /* SplitMix64 */
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (Chance){x ^ (x >> 31), a->dropout * 4294967296.0, 1 / (1 - a->dropout)};
}

INLINE Lanes kept(Chance chance, int64_t key) {
    Bits x = ((Bits)LANE + (uint32_t)key) * 0x9e3779b9u + chance.row;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    x ^= x >> 16;
    return choose((Whole)(x >= chance.least), (Lanes){} + chance.factor, (Lanes){});
}

static void mix(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first, void *outputs, float *sums) {
    int64_t S = room->S, D = room->D, keys = first + QUERIES, count = a->T - first < QUERIES ? a->T - first : QUERIES;
    float shares[QUERIES];
    read_queries(a, room, b, h, first, count);
    EACH(i, count) {
        float *scores = room->scores + i * S;
        hide(a, scores, b, first + i, keys);
        float most = largest_of(scores, keys), sum = raise(scores, keys, most);
        shares[i] = 1 / sum;
        sums[(b * a->H + h) * a->T + first + i] = most + logf(sum);
        if (a->dropout == 0) continue;
        Chance chance = chance_of(a, b, h, first + i);
        EACH_VECTOR(k, keys) store(scores + k, load(scores + k, FP32) * kept(chance, k));
    }
    multiply(room->mixed, D, (Matrix){room->scores, S, 1}, room->values, D, QUERIES, D, keys, NEW);
    EACH(i, count) {
        void *to = place(outputs, ((b * a->T + first + i) * a->H + h) * a->D, a->kind);
        EACH_VECTOR(j, a->D) put(to, j, a->D, a->kind, load(room->mixed + i * D + j, FP32) * shares[i]);
    }
}

/* outputs (B, T, H, D), and the logarithms of sums (B, H, T) for the way back */
void mypt_attend(const Attention *a, void *outputs, float *sums, float *memory) {
#pragma omp parallel for schedule(dynamic) num_threads(a->threads)
    for (int64_t bg = 0; bg < a->B * a->G; bg++) {
        Room room = room_in(memory, a);
        int64_t b = bg / a->G, g = bg % a->G, share = a->H / a->G;
        read_keys(a, &room, b, g);
        for (int64_t h = g * share; h < (g + 1) * share; h++)
            for (int64_t first = 0; first < a->T; first += QUERIES) mix(a, &room, b, h, first, outputs, sums);
    }
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

static void mix_back(const Attention *a, const Room *room, int64_t b, int64_t h, int64_t first,
                     const void *output_gradients, const float *sums, void *gradients, float *norm_gradient) {
    int64_t S = room->S, D = room->D, keys = first + QUERIES, count = a->T - first < QUERIES ? a->T - first : QUERIES;
    read_queries(a, room, b, h, first, count);
    clear(room->mixed, QUERIES * D);
    EACH(i, count) {
        float *scores = room->scores + i * S;
        hide(a, scores, b, first + i, keys);
        raise(scores, keys, sums[(b * a->H + h) * a->T + first + i]);
        const void *from = at(output_gradients, ((b * a->T + first + i) * a->H + h) * a->D, a->kind);
        EACH_VECTOR(j, a->D) put(room->mixed + i * D, j, a->D, FP32, get(from, j, a->D, a->kind));
    }
    Matrix weights = {room->scores, 1, S}, moved = {room->score_gradients, S, 1}, moved_over = {moved.numbers, 1, S};
    multiply(room->score_gradients, S, (Matrix){room->mixed, D, 1}, room->turned_values, S, QUERIES, keys, a->D, NEW);
    EACH(i, QUERIES) {
        Chance chance = chance_of(a, b, h, first + i);
        weigh_back(a, room->scores + i * S, room->score_gradients + i * S, chance, keys);
    }
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
#pragma omp parallel for schedule(dynamic) num_threads(a->threads)
    for (int64_t bg = 0; bg < a->B * a->G; bg++) {
        Room room = room_in(memory, a);
        int64_t b = bg / a->G, g = bg % a->G, share = a->H / a->G;
        float *of_queries = norm_gradients + bg * 2 * a->D, *of_keys = of_queries + a->D;
        clear(of_queries, 2 * a->D);
        read_keys(a, &room, b, g);
        turn_over(room.turned_values, room.S, room.values, room.T, room.D);
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
