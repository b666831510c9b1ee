"""vLLM engines, in process and as a server."""
