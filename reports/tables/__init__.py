"""From report data to tables."""
