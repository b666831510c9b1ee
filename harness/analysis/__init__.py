"""From records and samples to numbers. No thresholds, no advice."""
