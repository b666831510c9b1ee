"""Models with random weights, made locally."""
