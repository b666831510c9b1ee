"""Drivers: send a schedule to an engine and pass on a record of each request."""
