"""Engines of the llama.cpp family."""
