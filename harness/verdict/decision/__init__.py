"""Decision: one row per configuration, which of them dominate others, and which to choose."""
