"""Parts of a training step as C, for CPUs: one pass over memory each, where torch takes several."""
