"""Fits: curves through the loads of a sweep, with intervals and hold-out errors; refused where they do not fit."""
