"""Saturation: the largest request rate that keeps the limits, searched for and derived from what was recorded."""
