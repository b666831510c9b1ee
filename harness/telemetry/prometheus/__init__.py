"""Metrics pages in Prometheus text format: names, one page, reading many."""
