/* SwiGLU's gate (Shazeer, 2020), GELU (Hendrycks and Gimpel, 2016), their gradients, and dropout. */
#include "activations.h"
#include "chance.h"

INLINE void gate(const void *gates, const void *ups, void *outputs, int64_t count, int32_t threads, int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < count; first += NUMBERS_AT_ONCE)
        EACH_VECTOR_FROM(i, first, count) {
            CALL_FOR(gates, i, kind), CALL_FOR(ups, i, kind), CALL_FOR_PLACE(outputs, i, kind);
            put(outputs, i, count, kind, activated(get(gates, i, count, kind), SWIGLU) * get(ups, i, count, kind));
        }
}

INLINE void gate_back(const void *output_gradients, const void *gates, const void *ups, void *gates_back,
                      void *ups_back, int64_t count, int32_t threads, int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < count; first += NUMBERS_AT_ONCE)
        EACH_VECTOR_FROM(i, first, count) {
            CALL_FOR(output_gradients, i, kind), CALL_FOR(gates, i, kind), CALL_FOR(ups, i, kind);
            CALL_FOR_PLACE(gates_back, i, kind), CALL_FOR_PLACE(ups_back, i, kind);
            Lanes gate = get(gates, i, count, kind), up = get(ups, i, count, kind), active, of_gate, of_up;
            gate_and_back(gate, up, get(output_gradients, i, count, kind), &active, &of_gate, &of_up);
            put(gates_back, i, count, kind, of_gate);
            put(ups_back, i, count, kind, of_up);
        }
}

/* In the tanh form. */
INLINE void gelu(const void *inputs, void *outputs, int64_t count, int32_t threads, int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < count; first += NUMBERS_AT_ONCE)
        EACH_VECTOR_FROM(i, first, count) {
            CALL_FOR(inputs, i, kind), CALL_FOR_PLACE(outputs, i, kind);
            put(outputs, i, count, kind, activated(get(inputs, i, count, kind), GELU));
        }
}

INLINE void gelu_back(const void *output_gradients, const void *inputs, void *gradients, int64_t count, int32_t threads,
                      int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < count; first += NUMBERS_AT_ONCE)
        EACH_VECTOR_FROM(i, first, count) {
            CALL_FOR(output_gradients, i, kind), CALL_FOR(inputs, i, kind), CALL_FOR_PLACE(gradients, i, kind);
            Lanes active, of_x;
            gelu_and_back(get(inputs, i, count, kind), get(output_gradients, i, count, kind), &active, &of_x);
            put(gradients, i, count, kind, of_x);
        }
}

/* Numbers or their gradients. */
INLINE void drop(const void *inputs, void *outputs, int64_t count, uint64_t seed, float dropout, int32_t threads,
                 int64_t kind) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < count; first += NUMBERS_AT_ONCE) {
        Chance chance = chance_in(seed, first / NUMBERS_AT_ONCE, dropout);
        EACH_VECTOR_FROM(i, first, count) {
            CALL_FOR(inputs, i, kind), CALL_FOR_PLACE(outputs, i, kind);
            put(outputs, i, count, kind, get(inputs, i, count, kind) * kept(chance, i - first));
        }
    }
}

/* The same for each kind, so that no vector has to ask. */
#define FOR_KIND(function, ...) (kind == FP32 ? function(__VA_ARGS__, FP32) : function(__VA_ARGS__, BF16))

void mypt_gate(const void *gates, const void *ups, void *outputs, int64_t count, int32_t threads, int64_t kind) {
    FOR_KIND(gate, gates, ups, outputs, count, threads);
}

void mypt_gate_back(const void *output_gradients, const void *gates, const void *ups, void *gates_back,
                    void *ups_back, int64_t count, int32_t threads, int64_t kind) {
    FOR_KIND(gate_back, output_gradients, gates, ups, gates_back, ups_back, count, threads);
}

void mypt_gelu(const void *inputs, void *outputs, int64_t count, int32_t threads, int64_t kind) {
    FOR_KIND(gelu, inputs, outputs, count, threads);
}

void mypt_gelu_back(const void *output_gradients, const void *inputs, void *gradients, int64_t count, int32_t threads,
                    int64_t kind) {
    FOR_KIND(gelu_back, output_gradients, inputs, gradients, count, threads);
}

void mypt_drop(const void *inputs, void *outputs, int64_t count, uint64_t seed, float dropout, int32_t threads,
               int64_t kind) {
    FOR_KIND(drop, inputs, outputs, count, seed, dropout, threads);
}
