"""GGUF files: reading, writing, quantizing."""
