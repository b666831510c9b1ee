"""The engines of the llama.cpp family."""
