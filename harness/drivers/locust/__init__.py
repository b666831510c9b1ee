"""A load that Locust sends. Nothing outside this package imports Locust."""
