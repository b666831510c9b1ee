"""Models: built-in, folders, GGUF files and the hub; and their GGUF levels."""
