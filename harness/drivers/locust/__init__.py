"""Loads sent by Locust. No other package imports Locust."""
