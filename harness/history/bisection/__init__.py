"""Bisection: which of several versions made a number change."""
