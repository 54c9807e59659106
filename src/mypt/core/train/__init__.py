"""Introduces data to model: the loop, the optimizer, the schedule."""
