"""Weights and state <-> directory. `store` and `header` need no torch; `tensors` and `legacy` do."""
