"""From tables and plots to files."""
