"""Load processes that share a trial's plan."""
