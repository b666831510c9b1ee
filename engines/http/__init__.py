"""Servers that are already running, and how they are reached."""
