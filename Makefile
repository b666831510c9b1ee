# One door for developers; continuous integration walks through the same one.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run check format test test-fast test-gpu bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.run-installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

setup: $(STAMP)  ## create the virtual environment with everything for development

run: $(VENV)/.run-installed  ## install and run the quick start
	$(BIN)/harness run scenarios/quickstart.yaml

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP)  ## the whole test suite
	$(BIN)/python -m pytest

test-fast: $(STAMP)  ## the unit tests, on two cores in about a minute
	$(BIN)/python -m pytest -m "not slow and not gpu" -q -n 2 --dist loadfile -p no:benchmark

test-gpu: $(STAMP)  ## what needs a GPU
	$(BIN)/python -m pytest -m gpu

bench: $(STAMP)  ## speed and memory targets, as ratios and errors within one run
	$(BIN)/python -m pytest benchmarks -q -s

docs: $(STAMP)  ## write the generated pages again
	$(BIN)/python -m harness.reference
	$(BIN)/python -m harness.metrics

clean:  ## remove what was built here
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
