"""A load that several of our own processes send."""
