"""The measuring HTTP client: connections, pools, responses."""
