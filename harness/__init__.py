"""A benchmarking and load-testing harness for LLM inference.

Read `docs/architecture.md` for the words and the one-way path; `harness.cli` is the only module that prints and exits.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
