/* What activations (core/native/numbers.h) give, and how they go back. */
#pragma once
#include "vectors.h"

/* GELU (Hendrycks and Gimpel, 2016), in the tanh form: of `moved` at its outputs, what is moved at its inputs. */
INLINE void gelu_and_back(Lanes x, Lanes moved, Lanes *active, Lanes *of_x) {
    Lanes squared = 0.044715f * x * x, share = sigmoid(1.5957691216f * x * (1 + squared));
    *active = x * share;
    *of_x = moved * (share + *active * (1 - share) * 1.5957691216f * (1 + 3 * squared));
}

/* SwiGLU's gate (Shazeer, 2020), and what it lets through. */
INLINE void gate_and_back(Lanes gate, Lanes up, Lanes moved, Lanes *active, Lanes *of_gate, Lanes *of_up) {
    Lanes share = sigmoid(gate), open = gate * share;
    *active = open * up;
    *of_up = moved * open;
    *of_gate = moved * up * share * (1 + gate * (1 - share));
}
