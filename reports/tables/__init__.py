"""Tables from report data."""
