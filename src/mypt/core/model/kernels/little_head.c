/* The output head and its loss, as in head.c, for vocabularies that are a few strips wide: all logits of some rows are
 * there at once.
 */
#include "head.h"
#include "rows.h"
#include "softmax.h"

#ifdef HAS_PAIRS

typedef struct {
    Factor forward, back;
    uint16_t *weights; /* (V, C), filled up */
    uint16_t *turned;  /* (C, turned_row) */
    uint32_t *pairs;   /* (V / TILE, N / 2, TILE): gradients of logits */
    float *own;
} Room;

/* Each thread's. */
typedef struct {
    float *strip, *logits; /* (ROWS, MULTIPLE), (ROWS, V) */
    uint16_t *gradients;   /* (ROWS, V) */
} Own;

static int64_t own_words(int64_t V) { return ROWS * (MULTIPLE + 3 * V / 2); }

/* From `memory` on, which is where it ends afterwards. V: filled up. */
static Room room_in(float **memory, int64_t N, int64_t C, int64_t V, int64_t threads) {
    Room room = {.weights = take(memory, V * C / 2)};
    room.forward = factor_of(memory, room.weights, NULL, V, C, 0);
    room.back = factor_of(memory, room.weights, NULL, V, C, 1);
    room.turned = take(memory, C * turned_row(N) / 2);
    room.pairs = take(memory, N * V / 2);
    room.own = take(memory, threads * own_words(V));
    return room;
}

int64_t mypt_little_head_room(int64_t N, int64_t C, int64_t V, int64_t threads) {
    float start[1], *end = start;
    room_in(&end, N, C, filled_up(V), threads);
    return end - start;
}

/* Logits of a row -> gradients of them; gives the loss. */
static float lose(const Head *h, float *logits, uint16_t *gradients, int64_t target) {
    int64_t V = filled_up(h->V);
    for (int64_t j = h->V / LANES * LANES; j < V; j += LANES) /* beyond the vocabulary */
        store(logits + j, choose(LANE < (int32_t)(h->V - j), load(logits + j, FP32), (Lanes){} - INFINITY));
    float own = target < 0 ? 0 : logits[target], less = largest_of(logits, V);
    float all = raise(logits, logits, V, less, FP32), factor = target < 0 ? 0 : h->weight / all;
    EACH_VECTOR(j, V) store(logits + j, load(logits + j, FP32) * factor);
    if (target >= 0) logits[target] -= h->weight;
    narrow(gradients, logits, V);
    return target < 0 ? 0 : less + logf(all) - own;
}

static void lose_rows(const Head *h, const Room *room, int64_t first) {
    int64_t C = h->C, V = filled_up(h->V), count = h->N - first < ROWS ? h->N - first : ROWS;
    float *memory = room->own + omp_get_thread_num() * own_words(V);
    Own own = {.strip = take(&memory, ROWS * MULTIPLE), .logits = take(&memory, ROWS * V), .gradients = (void *)memory};
    EACH_STRIP(c, V) multiply_strip(own.logits + c, V, h->rows + first * C, &room->forward, c, count, NEW);
    EACH(r, count) h->losses[first + r] = lose(h, own.logits + r * V, own.gradients + r * V, h->targets[first + r]);
    linear(h->row_gradients + first * C, own.gradients, &room->back, NULL, count, own.strip);
    keep_turned(C, h->N, room->turned, h->rows + first * C, first, count);
    keep_pairs(h->N, room->pairs, own.gradients, first, count, V);
}

/* Some tokens' weights, and some of their numbers. */
static void weight_gradient(const Head *h, const Room *room, int64_t c, int64_t r) {
    float strip[MULTIPLE * MULTIPLE], turned[MULTIPLE * MULTIPLE];
    multiply_over_rows(strip, room->turned, room->pairs, r, c, h->N);
    turn_over(turned, MULTIPLE, strip, MULTIPLE, MULTIPLE, MULTIPLE);
    for (int64_t i = 0; i < MULTIPLE && c + i < h->V; i++)
        memcpy(h->weight_gradients + (c + i) * h->C + r, turned + i * MULTIPLE, MULTIPLE * sizeof(float));
}

void mypt_little_head(const Head *h, float *memory) {
    Room room = room_in(&memory, h->N, h->C, filled_up(h->V), h->threads);
    memcpy(room.weights, h->weights, h->V * h->C * sizeof(uint16_t));
    memset(room.weights + h->V * h->C, 0, (filled_up(h->V) - h->V) * h->C * sizeof(uint16_t));
#pragma omp parallel num_threads(h->threads)
    {
        begin_products();
        pack(&room.forward, 0), pack(&room.back, 1);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t first = 0; first < h->N; first += ROWS) lose_rows(h, &room, first);
#pragma omp for collapse(2) schedule(static)
        for (int64_t c = 0; c < h->V; c += MULTIPLE)
            for (int64_t r = 0; r < h->C; r += MULTIPLE) weight_gradient(h, &room, c, r);
        end_products();
    }
}
#endif
