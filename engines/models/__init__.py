"""Where models come from: the built-in one, folders, GGUF files and the hub; conversion to GGUF and its quantization levels."""
