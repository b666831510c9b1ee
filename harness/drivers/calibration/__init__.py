"""A server of known truth, and the errors of the measuring client on it."""
