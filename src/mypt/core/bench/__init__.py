"""Measures this machine: one child process for every figure, the rows in turns."""
