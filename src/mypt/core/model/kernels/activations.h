/* How the activations (core/native/numbers.h) go back. */
#pragma once
#include "vectors.h"

/* GELU's (Hendrycks and Gimpel, 2016), in the tanh form. */
INLINE Lanes gelu_slope(Lanes x) {
    Lanes squared = 0.044715f * x * x, share = sigmoid(1.5957691216f * x * (1 + squared));
    return share + x * share * (1 - share) * 1.5957691216f * (1 + 3 * squared);
}

/* Gradients of SwiGLU's gate (Shazeer, 2020) and of what it lets through. */
INLINE void gate_gradients(Lanes moved, Lanes gate, Lanes up, Lanes *of_gate, Lanes *of_up) {
    Lanes share = sigmoid(gate);
    *of_up = moved * gate * share;
    *of_gate = moved * up * share * (1 + gate * (1 - share));
}
