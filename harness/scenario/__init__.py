"""A scenario file: its models, how it is read, and every mistake in it with its place."""
