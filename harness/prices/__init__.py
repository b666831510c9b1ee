"""Prices of machines: a catalogue with dates and sources, and working hours."""
