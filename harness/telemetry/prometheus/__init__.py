"""Metrics pages in Prometheus text format: names, one page, periodic reading."""
