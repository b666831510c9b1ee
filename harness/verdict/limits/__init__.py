"""Limits of a scenario against the numbers: whether each holds, how surely, and the exit code."""
