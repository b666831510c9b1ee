"""Scorecard of the gate: false alarms and found slowdowns on real servers (docs/compare.md)."""
