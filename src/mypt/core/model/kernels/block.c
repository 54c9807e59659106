/* A whole block in bf16, forward and back: the calls of its parts would take most of a small step. Some rows at a time
 * pass what works row by row, and stay near; attention is that of attention_pairs.c.
 *
 * Nothing depends on the number of threads: gradients of weights are sums over all rows at once, and others are added
 * up by the rows' order.
 */
#include "activations.h"
#include "block.h"
#include "rows.h"

#ifdef HAS_PAIRS

typedef struct {
    Factor heads, output, gate, up, down;
} Factors;

/* What is summed over rows, one row of it for some rows of the block. */
typedef struct {
    float *attention_norm, *attention_norm_bias, *mlp_norm, *mlp_norm_bias;
    float *heads_bias, *output_bias, *up_bias, *down_bias;
} Sums;

typedef struct {
    Factors factors;
    uint16_t *turned_normed, *turned_normed_again; /* (C, turned_row) */
    uint16_t *turned_middle, *turned_outputs;      /* the same */
    uint32_t *active_pairs, *gate_pairs, *up_pairs;                 /* (I / TILE, N / 2, TILE) */
    uint32_t *mixed_pairs, *heads_pairs;                            /* (C / TILE, N / 2, TILE), with W for C */
    uint16_t *middle_gradients, *mixed_gradients, *heads_gradients; /* (N, C), (N, C), (N, W) */
    float *sums, *head_norms;                                       /* (N / ROWS, all), (B, G, 2, D) */
    float *attention, *own;
} Room;

/* Each thread's. */
typedef struct {
    float *strip;                                     /* (ROWS, MULTIPLE) */
    uint16_t *normed, *moved;                         /* (ROWS, C) */
    uint16_t *active, *gate_gradients, *up_gradients; /* (ROWS, I) */
} Own;

static int64_t rows_of(const Block *b) { return b->B * b->T; }
static int64_t heads_width(const Block *b) { return (b->H + 2 * b->G) * b->D; }
static int64_t sums_width(const Block *b) { return 6 * b->C + heads_width(b) + b->I; }
static int64_t own_words(const Block *b) { return ROWS * (MULTIPLE + b->C + 3 * b->I / 2); }

/* The room, from `memory` on, which is where it ends afterwards. */
static Room room_in(const Block *b, float **memory, int is_back) {
    const Parts *w = &b->weights;
    int64_t N = rows_of(b), C = b->C, I = b->I, W = heads_width(b), turned = C * turned_row(N) / 2;
    Room room;
    room.factors.heads = factor_of(memory, w->heads, w->heads_bias, W, C, is_back);
    room.factors.output = factor_of(memory, w->output, w->output_bias, C, C, is_back);
    room.factors.gate = factor_of(memory, w->gate, NULL, I, C, is_back);
    room.factors.up = factor_of(memory, w->up, w->up_bias, I, C, is_back);
    room.factors.down = factor_of(memory, w->down, w->down_bias, C, I, is_back);
    if (is_back) {
        uint16_t **all_turned[] = {&room.turned_normed, &room.turned_normed_again, &room.turned_middle,
                                   &room.turned_outputs};
        uint32_t **inner[] = {&room.active_pairs, &room.up_pairs, &room.gate_pairs};
        EACH(i, 4) *all_turned[i] = take(memory, turned);
        EACH(i, 3) *inner[i] = take(memory, i < 2 || w->gate ? N * I / 2 : 0);
        room.mixed_pairs = take(memory, N * C / 2), room.heads_pairs = take(memory, N * W / 2);
        room.middle_gradients = take(memory, N * C / 2), room.mixed_gradients = take(memory, N * C / 2);
        room.heads_gradients = take(memory, N * W / 2);
        room.sums = take(memory, (N + ROWS - 1) / ROWS * sums_width(b));
        room.head_norms = take(memory, b->B * b->G * 2 * b->D);
    }
    room.attention = take(memory, b->threads * mypt_attention_room(b->T, b->D));
    room.own = take(memory, b->threads * own_words(b));
    return room;
}

int64_t mypt_block_room(const Block *b, int64_t is_back) {
    float start[1], *end = start;
    room_in(b, &end, is_back);
    return end - start;
}

static Own own_room(const Block *b, const Room *room) {
    float *memory = room->own + omp_get_thread_num() * own_words(b);
    int64_t of_width = ROWS * b->C / 2, of_inner = ROWS * b->I / 2;
    Own own = {.strip = take(&memory, ROWS * MULTIPLE)};
    own.normed = take(&memory, of_width), own.moved = take(&memory, of_width);
    own.active = take(&memory, of_inner);
    own.gate_gradients = take(&memory, of_inner), own.up_gradients = take(&memory, of_inner);
    return own;
}

static Norm norm_of(const Block *b, int is_second) {
    const Parts *w = &b->weights;
    int64_t before = is_second * rows_of(b);
    return (Norm){
        .weights = is_second ? w->mlp_norm : w->attention_norm,
        .biases = is_second ? w->mlp_norm_bias : w->attention_norm_bias,
        .means = b->means ? b->means + before : NULL,
        .factors = b->factors + before,
        .width = b->C,
        .eps = b->eps,
    };
}

static Attention attention_of(const Block *b) {
    return (Attention){
        .inputs = b->heads, .query_norm = b->weights.query_norm, .key_norm = b->weights.key_norm,
        .cosines = b->cosines, .sines = b->sines, .documents = b->documents,
        .B = b->B, .T = b->T, .H = b->H, .G = b->G, .D = b->D, .kind = BF16,
        .eps = b->head_eps, .threads = b->threads,
    };
}

static void pack_all(const Factors *f, int is_back) {
    pack(&f->heads, is_back), pack(&f->output, is_back);
    pack(&f->gate, is_back), pack(&f->up, is_back), pack(&f->down, is_back);
#pragma omp barrier
}

static int64_t count_from(const Block *b, int64_t first) {
    return rows_of(b) - first < ROWS ? rows_of(b) - first : ROWS;
}

static void read_heads(const Block *b, const Factors *f, const Own *own, int64_t first) {
    int64_t count = count_from(b, first), C = b->C;
    Norm norm = norm_of(b, 0);
    EACH(r, count) {
        measure_row(&norm, first + r, b->inputs + (first + r) * C, BF16);
        norm_row(&norm, first + r, b->inputs + (first + r) * C, own->normed + r * C, BF16);
    }
    linear(b->heads + first * heads_width(b), own->normed, &f->heads, NULL, count, own->strip);
}

static void think(const Block *b, const Factors *f, const Own *own, int64_t first) {
    int64_t count = count_from(b, first), C = b->C, inner = first * b->I;
    uint16_t *middle = b->middle + first * C;
    Norm norm = norm_of(b, 1);
    linear(middle, b->mixed + first * C, &f->output, b->inputs + first * C, count, own->strip);
    EACH(r, count) {
        measure_row(&norm, first + r, middle + r * C, BF16);
        norm_row(&norm, first + r, middle + r * C, own->normed + r * C, BF16);
    }
    linear(b->ups + inner, own->normed, &f->up, NULL, count, own->strip);
    if (b->gates) linear(b->gates + inner, own->normed, &f->gate, NULL, count, own->strip);
    EACH_VECTOR(i, count * b->I) {
        Lanes y = load(b->ups + inner + i, BF16);
        if (b->gates)
            y *= activated(load(b->gates + inner + i, BF16), SWIGLU);
        else
            y = activated(y, b->activation);
        *(Halves *)(own->active + i) = narrowed(y);
    }
    linear(b->outputs + first * C, own->active, &f->down, middle, count, own->strip);
}

void mypt_block(const Block *b, float *memory) {
    Room room = room_in(b, &memory, 0);
    Attention attention = attention_of(b);
#pragma omp parallel num_threads(b->threads)
    {
        Own own = own_room(b, &room);
        begin_products();
        pack_all(&room.factors, 0);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < rows_of(b); first += ROWS) read_heads(b, &room.factors, &own, first);
        end_products();
    }
    attend_in_pairs(&attention, b->mixed, b->sums, room.attention);
#pragma omp parallel num_threads(b->threads)
    {
        Own own = own_room(b, &room);
        begin_products();
#pragma omp for schedule(static)
        for (int64_t first = 0; first < rows_of(b); first += ROWS) think(b, &room.factors, &own, first);
        end_products();
    }
}

/* The way back */

static Sums sums_at(const Block *b, const Room *room, int64_t first) {
    float *sums = room->sums + first / ROWS * sums_width(b);
    int64_t C = b->C;
    return (Sums){
        .attention_norm = sums, .attention_norm_bias = sums + C, .output_bias = sums + 2 * C,
        .mlp_norm = sums + 3 * C, .mlp_norm_bias = sums + 4 * C, .down_bias = sums + 5 * C,
        .heads_bias = sums + 6 * C, .up_bias = sums + 6 * C + heads_width(b),
    };
}

static void add_rows(float *sums, const uint16_t *rows, int64_t count, int64_t width) {
    EACH(r, count) EACH_VECTOR(i, width) store(sums + i, load(sums + i, FP32) + load(rows + r * width + i, BF16));
}

/* Gradients of what the activation gave, some columns of them -> of what it was given; and again what it gave. */
static void activate_back(const Block *b, const Own *own, int64_t first, int64_t r, int64_t c, float *bias_sums) {
    for (int64_t i = c; i < c + MULTIPLE; i += LANES) {
        int64_t place = r * b->I + i;
        Lanes moved = load(own->strip + r * MULTIPLE + i - c, FP32), x = load(b->ups + first * b->I + place, BF16);
        Lanes active, of_up, of_gate;
        if (b->activation == SWIGLU) {
            gate_and_back(load(b->gates + first * b->I + place, BF16), x, moved, &active, &of_gate, &of_up);
            *(Halves *)(own->gate_gradients + place) = narrowed(of_gate);
        } else if (b->activation == GELU) {
            gelu_and_back(x, moved, &active, &of_up);
        } else {
            active = activated(x, RELU);
            of_up = choose(x > 0.0f, moved, (Lanes){});
        }
        *(Halves *)(own->active + place) = narrowed(active);
        *(Halves *)(own->up_gradients + place) = narrowed(of_up);
        store(bias_sums + i, load(bias_sums + i, FP32) + of_up);
    }
}

/* From the gradients of the block's outputs to those of what was mixed. */
static void think_back(const Block *b, const Room *room, const Own *own, const uint16_t *output_gradients,
                       int64_t first) {
    int64_t count = count_from(b, first), C = b->C, I = b->I;
    const Factors *f = &room->factors;
    const uint16_t *moved = output_gradients + first * C, *middle = b->middle + first * C;
    uint16_t *to = room->middle_gradients + first * C;
    Norm norm = norm_of(b, 1);
    Sums sums = sums_at(b, room, first);
    memset(room->sums + first / ROWS * sums_width(b), 0, sums_width(b) * sizeof(float));
    EACH_STRIP(c, I) {
        multiply_strip(own->strip, MULTIPLE, moved, &f->down, c, count, NEW);
        EACH(r, count) activate_back(b, own, first, r, c, sums.up_bias);
    }
    EACH_STRIP(c, C) {
        multiply_strip(own->strip, MULTIPLE, own->up_gradients, &f->up, c, count, NEW);
        if (b->gates) multiply_strip(own->strip, MULTIPLE, own->gate_gradients, &f->gate, c, count, MORE);
        EACH(r, count) narrow(own->moved + r * C + c, own->strip + r * MULTIPLE, MULTIPLE);
    }
    EACH(r, count) {
        const uint16_t *row = middle + r * C;
        norm_row(&norm, first + r, row, own->normed + r * C, BF16);
        norm_row_back(&norm, first + r, row, own->moved + r * C, moved + r * C, to + r * C, sums.mlp_norm,
                      sums.mlp_norm_bias, BF16);
    }
    linear(room->mixed_gradients + first * C, to, &f->output, NULL, count, own->strip);
    add_rows(sums.down_bias, moved, count, C);
    add_rows(sums.output_bias, to, count, C);
    keep_turned(b->C, rows_of(b), room->turned_outputs, moved, first, count);
    keep_turned(b->C, rows_of(b), room->turned_normed_again, own->normed, first, count);
    keep_turned(b->C, rows_of(b), room->turned_middle, to, first, count);
    keep_pairs(rows_of(b), room->active_pairs, own->active, first, count, I);
    keep_pairs(rows_of(b), room->up_pairs, own->up_gradients, first, count, I);
    if (b->gates) keep_pairs(rows_of(b), room->gate_pairs, own->gate_gradients, first, count, I);
    keep_pairs(rows_of(b), room->mixed_pairs, b->mixed + first * C, first, count, C);
}

static void read_heads_back(const Block *b, const Room *room, const Own *own, uint16_t *input_gradients,
                            int64_t first) {
    int64_t count = count_from(b, first), C = b->C, W = heads_width(b);
    const uint16_t *moved = room->heads_gradients + first * W;
    Norm norm = norm_of(b, 0);
    Sums sums = sums_at(b, room, first);
    linear(own->moved, moved, &room->factors.heads, NULL, count, own->strip);
    EACH(r, count) {
        const uint16_t *row = b->inputs + (first + r) * C, *beside = room->middle_gradients + (first + r) * C;
        norm_row(&norm, first + r, row, own->normed + r * C, BF16);
        norm_row_back(&norm, first + r, row, own->moved + r * C, beside, input_gradients + (first + r) * C,
                      sums.attention_norm, sums.attention_norm_bias, BF16);
    }
    add_rows(sums.heads_bias, moved, count, W);
    keep_turned(b->C, rows_of(b), room->turned_normed, own->normed, first, count);
    keep_pairs(rows_of(b), room->heads_pairs, moved, first, count, W);
}

/* Into (C, columns), or into that turned over. */
static void weight_gradient(const Block *b, uint16_t *to, const uint16_t *turned, const uint32_t *pairs,
                            int64_t columns, int is_turned, float *strip) {
    if (!to) return;
    int64_t N = rows_of(b);
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t c = 0; c < columns; c += MULTIPLE)
        for (int64_t r = 0; r < b->C; r += MULTIPLE) {
            uint16_t numbers[MULTIPLE * MULTIPLE];
            multiply_over_rows(strip, turned, pairs, r, c, N);
            narrow(numbers, strip, MULTIPLE * MULTIPLE);
            if (is_turned)
                turn_rows(to + c * b->C + r, b->C, numbers, MULTIPLE, MULTIPLE);
            else
                EACH(i, MULTIPLE) memcpy(to + (r + i) * columns + c, numbers + i * MULTIPLE, sizeof numbers / MULTIPLE);
        }
}

/* (rows, width), `row` apart -> their sum */
static void add_up(void *to, const float *sums, int64_t row, int64_t rows, int64_t width) {
    if (!to) return;
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < width; i += LANES) {
        Lanes sum = {};
        EACH(r, rows) sum += get(sums + r * row, i, width, FP32);
        put(to, i, width, BF16, sum);
    }
}

static void weight_gradients(const Block *b, const Room *room, const Parts *g, float *strip) {
    int64_t C = b->C, I = b->I, W = heads_width(b), some = (rows_of(b) + ROWS - 1) / ROWS, row = sums_width(b);
    Sums sums = sums_at(b, room, 0);
    weight_gradient(b, g->down, room->turned_outputs, room->active_pairs, I, 0, strip);
    weight_gradient(b, g->up, room->turned_normed_again, room->up_pairs, I, 1, strip);
    weight_gradient(b, g->gate, room->turned_normed_again, room->gate_pairs, I, 1, strip);
    weight_gradient(b, g->output, room->turned_middle, room->mixed_pairs, C, 0, strip);
    weight_gradient(b, g->heads, room->turned_normed, room->heads_pairs, W, 1, strip);
    add_up(g->attention_norm, sums.attention_norm, row, some, C);
    add_up(g->attention_norm_bias, sums.attention_norm_bias, row, some, C);
    add_up(g->heads_bias, sums.heads_bias, row, some, W);
    add_up(g->output_bias, sums.output_bias, row, some, C);
    add_up(g->mlp_norm, sums.mlp_norm, row, some, C);
    add_up(g->mlp_norm_bias, sums.mlp_norm_bias, row, some, C);
    add_up(g->up_bias, sums.up_bias, row, some, I);
    add_up(g->down_bias, sums.down_bias, row, some, C);
    add_up(g->query_norm, room->head_norms, 2 * b->D, b->B * b->G, b->D);
    add_up(g->key_norm, room->head_norms + b->D, 2 * b->D, b->B * b->G, b->D);
}

void mypt_block_back(const Block *b, const Parts *gradients, const uint16_t *output_gradients,
                     uint16_t *input_gradients, float *memory) {
    Room room = room_in(b, &memory, 1);
    Attention attention = attention_of(b);
#pragma omp parallel num_threads(b->threads)
    {
        Own own = own_room(b, &room);
        begin_products();
        pack_all(&room.factors, 1);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < rows_of(b); first += ROWS)
            think_back(b, &room, &own, output_gradients, first);
        end_products();
    }
    attend_back_in_pairs(&attention, room.mixed_gradients, b->sums, room.heads_gradients, room.head_norms,
                         room.attention);
#pragma omp parallel num_threads(b->threads)
    {
        Own own = own_room(b, &room);
        begin_products();
#pragma omp for schedule(static)
        for (int64_t first = 0; first < rows_of(b); first += ROWS)
            read_heads_back(b, &room, &own, input_gradients, first);
        weight_gradients(b, &room, gradients, own.strip);
        end_products();
    }
}
#endif
