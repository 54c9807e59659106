/* The output head and its loss together, in bf16: no logits are kept. Some tokens' weights at a time meet all rows,
 * twice.
 *
 *     logits -> the largest of each row, and the sum of exponentials beside it
 *     logits again -> gradients of logits, in bf16 -> those of the weights, and shares of those of the rows
 *
 * What is added up is added up in one order, by however many threads.
 *
 * Letters: N rows, C width, V vocabulary.
 */
#include "head.h"
#include "pairs.h"

#ifdef HAS_PAIRS

#define ROWS 128                   /* at a time, whose gradients meet the weights together */
#define BLOCK_NUMBERS (128 * 1024) /* of weights: these, their pairs and their gradient stay in a core's cache */
#define FEWEST_TOKENS 64
#define MOST_TOKENS 512
/* Shares of the rows' gradients, each for a part of the vocabulary, and for a thread: so many numbers in all. */
#define SHARES_NUMBERS (4 << 20)
#define FEWEST_SHARES 8
#define MOST_SHARES 32

/* How the work is cut, by sizes alone. */
typedef struct {
    int64_t rows;   /* N, filled up */
    int64_t row;    /* from one number of a row to the next, where rows are turned over */
    int64_t tokens; /* in a block */
    int64_t blocks, shares;
} Plan;

static Plan plan_of(int64_t N, int64_t C, int64_t V) {
    Plan plan = {.rows = (N + ROWS - 1) / ROWS * ROWS, .tokens = MOST_TOKENS};
    plan.row = plan.rows + 2 * LANES;
    while (plan.tokens > FEWEST_TOKENS && plan.tokens * C > BLOCK_NUMBERS) plan.tokens /= 2;
    plan.blocks = (V + plan.tokens - 1) / plan.tokens;
    int64_t shares = SHARES_NUMBERS / (plan.rows * C);
    plan.shares = shares < FEWEST_SHARES ? FEWEST_SHARES : shares > MOST_SHARES ? MOST_SHARES : shares;
    if (plan.shares > plan.blocks) plan.shares = plan.blocks;
    return plan;
}

/* Numbers of 32 bits for all threads together, and for each. */
static int64_t common_room(Plan plan, int64_t C) {
    return plan.shares * plan.rows * C + C * plan.row / 2 + plan.rows * C / 2 + (2 * plan.blocks + 2) * plan.rows;
}

static int64_t own_room(Plan plan, int64_t C) { return (3 * C + MULTIPLE + ROWS) * plan.tokens; }

int64_t mypt_head_room(int64_t N, int64_t C, int64_t V, int64_t threads) {
    Plan plan = plan_of(N, C, V);
    return common_room(plan, C) + threads * own_room(plan, C);
}

typedef struct {
    /* all threads' */
    float *shares;           /* (shares, rows, C) */
    uint16_t *turned, *rows; /* (C, row), (rows, C) */
    float *largest, *sums;   /* (blocks, rows) */
    float *own, *total;      /* (rows): the target's logit, the logarithm of the sum of exponentials */
    /* each thread's */
    uint32_t *pairs_of_width;  /* (tokens / TILE, C / 2, TILE) */
    uint32_t *pairs_of_tokens; /* (C / TILE, tokens / 2, TILE) */
    uint16_t *weights;         /* (tokens, C) */
    float *turned_gradients;   /* (C, tokens) */
    float *logits;             /* (MULTIPLE, tokens) */
    uint32_t *pairs;           /* (tokens / TILE, ROWS / 2, TILE) */
    uint16_t *gradients;       /* (ROWS, tokens) */
} Room;

static Room room_in(float *memory, const Head *h, Plan plan, int thread) {
    Room room;
    int64_t of_weights = plan.tokens * h->C;
    room.shares = memory, memory += plan.shares * plan.rows * h->C;
    room.turned = (uint16_t *)memory, memory += h->C * plan.row / 2;
    room.rows = (uint16_t *)memory, memory += plan.rows * h->C / 2;
    room.largest = memory, memory += plan.blocks * plan.rows;
    room.sums = memory, memory += plan.blocks * plan.rows;
    room.own = memory, memory += plan.rows;
    room.total = memory, memory += plan.rows;
    memory += thread * own_room(plan, h->C);
    room.pairs_of_width = (uint32_t *)memory, memory += of_weights / 2;
    room.pairs_of_tokens = (uint32_t *)memory, memory += of_weights / 2;
    room.weights = (uint16_t *)memory, memory += of_weights / 2;
    room.turned_gradients = memory, memory += of_weights;
    room.logits = memory, memory += MULTIPLE * plan.tokens;
    room.pairs = (uint32_t *)memory, memory += ROWS / 2 * plan.tokens;
    room.gradients = (uint16_t *)memory;
    return room;
}

/* Two rows of fp32 -> a row of pairs; blocks are so many words apart. */
static void pair_up(uint32_t *to, int64_t block, const float *first, const float *second, int64_t count) {
    for (int64_t i = 0; i < count; i += TILE, to += block)
        *(Bits *)to = paired(load(first + i, FP32), load(second + i, FP32));
}

/* All rows, filled up with zeros, and turned over. */
static void read_rows(const Head *h, const Room *room, Plan plan, int64_t first) {
    int64_t C = h->C;
    uint16_t *rows = room->rows + first * C;
    int64_t count = h->N - first < MULTIPLE ? h->N - first : MULTIPLE;
    if (count < 0) count = 0;
    memcpy(rows, h->rows + first * C, count * C * sizeof(uint16_t));
    memset(rows + count * C, 0, (MULTIPLE - count) * C * sizeof(uint16_t));
    turn_rows(room->turned + first, plan.row, rows, C, C);
}

/* The weights of a block, zeros beyond the vocabulary. */
static int64_t read_block(const Head *h, const Room *room, Plan plan, int64_t block) {
    int64_t C = h->C, first = block * plan.tokens, count = h->V - first < plan.tokens ? h->V - first : plan.tokens;
    memcpy(room->weights, h->weights + first * C, count * C * sizeof(uint16_t));
    memset(room->weights + count * C, 0, (plan.tokens - count) * C * sizeof(uint16_t));
    pair_columns(room->pairs_of_width, room->weights, plan.tokens, C);
    return count;
}

static void find_logits(const Head *h, const Room *room, Plan plan, int64_t row) {
    Left rows = {room->rows + row * h->C, h->C};
    Right weights = {room->pairs_of_width, h->C / 2 * TILE};
    multiply_pairs(room->logits, plan.tokens, rows, weights, MULTIPLE, plan.tokens, h->C, NEW);
}

/* Some logits of a row; those from `count` on are of no token. */
INLINE Lanes logit(const float *logits, int64_t i, int64_t count) {
    Lanes x = load(logits + i, FP32);
    return count - i < LANES ? choose(LANE < (int32_t)(count - i), x, (Lanes){} - INFINITY) : x;
}

/* What the logits of a block have to say of each row's softmax. */
static void survey(const Head *h, const Room *room, Plan plan, int64_t block) {
    int64_t count = read_block(h, room, plan, block), first = block * plan.tokens;
    for (int64_t row = 0; row < plan.rows; row += MULTIPLE) {
        find_logits(h, room, plan, row);
        EACH(i, MULTIPLE) {
            const float *logits = room->logits + i * plan.tokens;
            Lanes most = (Lanes){} - INFINITY, sum = {};
            EACH_VECTOR(j, count) most = larger(logit(logits, j, count), most);
            float less = largest(most);
            EACH_VECTOR(j, count) sum += exponential(logit(logits, j, count) - less);
            room->largest[block * plan.rows + row + i] = less;
            room->sums[block * plan.rows + row + i] = total(sum);
            int64_t target = row + i < h->N ? h->targets[row + i] - first : -1;
            if (target >= 0 && target < count) room->own[row + i] = logits[target];
        }
    }
}

/* The loss of a row, of which all blocks have been seen. */
static void finish_row(const Head *h, const Room *room, Plan plan, int64_t row) {
    float most = -INFINITY, sum = 0;
    EACH(block, plan.blocks) {
        float x = room->largest[block * plan.rows + row];
        most = x > most ? x : most;
    }
    EACH(block, plan.blocks) {
        sum += room->sums[block * plan.rows + row] * expf(room->largest[block * plan.rows + row] - most);
    }
    room->total[row] = most + logf(sum);
    if (row < h->N) h->losses[row] = h->targets[row] < 0 ? 0 : room->total[row] - room->own[row];
}

/* The gradient of a row's logits: softmax, less 1 where the target is, times the weight. */
static void find_gradient(const Head *h, const Room *room, Plan plan, int64_t row, float *logits, int64_t first,
                          int64_t count) {
    int64_t target = row < h->N ? h->targets[row] : -1;
    Lanes less = (Lanes){} + room->total[row];
    float factor = target < 0 ? 0 : h->weight;
    EACH_VECTOR(j, plan.tokens) store(logits + j, exponential(logit(logits, j, count) - less) * factor);
    if (target >= first && target < first + count) logits[target - first] -= factor;
}

/* The gradients that pass through a block: its weights', and what is added to a share of the rows'. */
static void go_back_block(const Head *h, const Room *room, Plan plan, int64_t block, float *share) {
    int64_t C = h->C, tokens = plan.tokens, first = block * tokens, count = read_block(h, room, plan, block);
    pair_rows(room->pairs_of_tokens, tokens / 2 * TILE, room->weights, C, tokens, C);
    for (int64_t some = 0; some < plan.rows; some += ROWS) {
        for (int64_t row = some; row < some + ROWS; row += MULTIPLE) {
            find_logits(h, room, plan, row);
            for (int64_t i = 0; i < MULTIPLE; i += 2) {
                float *logits = room->logits + i * tokens;
                int64_t place = row - some + i;
                EACH(k, 2) find_gradient(h, room, plan, row + i + k, logits + k * tokens, first, count);
                narrow(room->gradients + place * tokens, logits, 2 * tokens);
                pair_up(room->pairs + place / 2 * TILE, ROWS / 2 * TILE, logits, logits + tokens, tokens);
            }
        }
        Left rows = {room->turned + some, plan.row}, gradients = {room->gradients, tokens};
        Right pairs = {room->pairs, ROWS / 2 * TILE}, weights = {room->pairs_of_tokens, tokens / 2 * TILE};
        multiply_pairs(room->turned_gradients, tokens, rows, pairs, C, tokens, ROWS, some ? MORE : NEW);
        multiply_pairs(share + some * C, C, gradients, weights, ROWS, C, tokens, MORE);
    }
    EACH(t, count) EACH(c, C) h->weight_gradients[(first + t) * C + c] = room->turned_gradients[c * tokens + t];
}

static void add_shares(const Head *h, const Room *room, Plan plan, int64_t row) {
    EACH_VECTOR(c, h->C) {
        Lanes sum = {};
        EACH(share, plan.shares) sum += load(room->shares + (share * plan.rows + row) * h->C + c, FP32);
        put(h->row_gradients + row * h->C, c, h->C, BF16, sum);
    }
}

void mypt_head(const Head *h, float *memory) {
    Plan plan = plan_of(h->N, h->C, h->V);
#pragma omp parallel num_threads(h->threads)
    {
        Room room = room_in(memory, h, plan, omp_get_thread_num());
        begin_products();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < plan.rows; row += MULTIPLE) read_rows(h, &room, plan, row);
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < plan.blocks; block++) survey(h, &room, plan, block);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < plan.rows; row++) finish_row(h, &room, plan, row);
#pragma omp for schedule(dynamic)
        for (int64_t s = 0; s < plan.shares; s++) {
            float *share = room.shares + s * plan.rows * h->C;
            memset(share, 0, plan.rows * h->C * sizeof(float));
            for (int64_t block = s * plan.blocks / plan.shares; block < (s + 1) * plan.blocks / plan.shares; block++)
                go_back_block(h, &room, plan, block, share);
        }
#pragma omp for schedule(static)
        for (int64_t row = 0; row < h->N; row++) add_shares(h, &room, plan, row);
        end_products();
    }
}

#endif

/* Whether there are instructions for pairs, and so `mypt_head`. */
int32_t mypt_has_pairs(void) {
#ifdef HAS_PAIRS
    return 1;
#else
    return 0;
#endif
}
