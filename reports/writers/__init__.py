"""Files from tables and plots."""
