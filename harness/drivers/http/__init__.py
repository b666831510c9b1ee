"""HTTP of the load generator: connections, pools, responses."""
