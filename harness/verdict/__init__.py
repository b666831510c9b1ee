"""Thresholds and advice: validity of a trial, limits, and which configuration to choose."""
