"""Drivers: what sends a schedule to an engine and hands on a record of each request."""
