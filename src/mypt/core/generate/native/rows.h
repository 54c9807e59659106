/* Rows of activations. WHOLE_ROW, whose multiples they are, and MOST_TOKENS of one call come from code.py. */
#include "numbers.h"

INLINE int64_t padded(int64_t count) { return (count + WHOLE_ROW - 1) / WHOLE_ROW * WHOLE_ROW; }
