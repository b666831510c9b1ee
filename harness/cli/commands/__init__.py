"""Commands of `harness`, a file for each."""
