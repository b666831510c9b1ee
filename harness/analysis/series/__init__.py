"""Data behind the plots."""
