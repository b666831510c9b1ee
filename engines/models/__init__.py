"""Where models come from: the built-in one, folders, GGUF files and the hub; and their GGUF levels."""
