"""Readings of this machine, its GPUs, and the metrics pages of servers."""
