"""Detector: what changed in a series of nights, when, and how sure that is; pure."""
