# Python 3.11 or later, pip and make are all that has to be there.
PYTHON ?= python3
CONSTRAINTS := constraints/airflow-3.3.txt
VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
# Each worker of the tests, and each process that one starts, would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo ui venv lint types layers test tests soak bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(MADE)  ## two nights of the cohort DAG against a local Braze
	$(BIN)/python demo/nights.py

ui: $(MADE)  ## the same in Airflow's UI, without a login
	$(BIN)/python demo/ui.py

venv: $(MADE)  ## make .venv: this package, editable, with Airflow and all tools

lint: $(MADE)  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(MADE)  ## static types
	$(BIN)/mypy

layers: $(MADE)  ## imports point one way
	$(BIN)/lint-imports

test: lint layers  ## everything above, and all tests
	@$(MAKE) --no-print-directory --jobs=2 types tests

# One worker more than cores: many tests wait for a server or a process.
tests: $(MADE)
	$(BIN)/python -m pytest -n 3 --dist loadgroup

soak: $(MADE)  ## what is killed in the tests, killed 300 times; and 300 histories of nights; it takes two hours
	HEAPBRAZE_KILLS=300 $(BIN)/python -m pytest -s --timeout 7200 \
		tests/unit/membership/test_killed.py tests/unit/events/test_export_killed.py \
		tests/unit/landing/test_killed.py
	HEAPBRAZE_EXAMPLES=300 $(BIN)/python -m pytest -s tests/unit/membership/test_model.py

bench: $(MADE)  ## speed and memory, each beside what one would write otherwise
	$(BIN)/python benchmarks/currents_throughput.py
	$(BIN)/python benchmarks/segment_refresh.py
	$(BIN)/python benchmarks/landing.py
	$(BIN)/python benchmarks/heap_connect.py

clean:  ## remove .venv, builds and caches
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew, not updated: what pyproject.toml no longer names must not stay behind.
$(MADE): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable . --group dev
	touch $@
