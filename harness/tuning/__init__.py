"""Tuning: which options of the engine are best, against its defaults (docs/tuning.md)."""
