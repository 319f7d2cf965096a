# Python 3.11 or later, pip and make are all that has to be there.
PYTHON ?= python3
CONSTRAINTS := constraints/airflow-3.3.txt
VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
MADE31 := .venv31/.made
# Each worker of the tests, and each process that one starts, would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo ui venv venv31 lint types layers test tests test31 docs screenshots stack soak bench instructions release clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(MADE)  ## two nights of a cohort, its segment back in Heap, an hour of events: against a local Braze
	$(BIN)/python demo/nights.py

ui: $(MADE)  ## the same in Airflow's UI, without a login
	$(BIN)/python demo/ui.py

venv: $(MADE)  ## make .venv: this package, editable, with Airflow and all tools

venv31: $(MADE31)  ## make .venv31: the same with the lowest Airflow there is support for, without the tools

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

docs: $(MADE)  ## the documentation, built strictly, into site/
	$(BIN)/zensical build --strict

screenshots: $(MADE)  ## the pictures of the documentation, taken anew of an Airflow with the sandbox
	$(BIN)/python -m tools.screenshots

test31: $(MADE31)  ## the operators, and a DAG from end to end, on Airflow 3.1
	$(<D)/bin/python -m pytest -n 3 --dist loadgroup tests/airflow \
		tests/system/test_cohort_dag.py::test_two_nights_and_the_way_back

stack: $(MADE)  ## docker-compose.yaml without Docker: 20 cohorts on one worker, on two, and with one killed
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --group stack
	$(BIN)/python -m stack.run

soak: $(MADE)  ## what is killed in the tests, killed 300 times; and 300 histories of nights; it takes hours
	HEAPBRAZE_KILLS=300 $(BIN)/python -m pytest -s --timeout 7200 \
		tests/unit/membership/test_killed.py tests/unit/events/test_export_killed.py \
		tests/unit/landing/test_killed.py
	HEAPBRAZE_SPARK=1 $(BIN)/python -m pytest -s --timeout 1800 tests/airflow/test_engine_spark.py
	HEAPBRAZE_WAREHOUSE=1 $(BIN)/python -m pytest tests/unit/membership/in_a_warehouse
	HEAPBRAZE_EXAMPLES=300 $(BIN)/python -m pytest -s --timeout 7200 tests/unit/membership/test_model.py \
		tests/unit/membership/test_engine_postgres.py

bench: $(MADE)  ## speed and memory, each beside what one would write otherwise; it takes long
	$(BIN)/python benchmarks/planning.py
	PYTHONPATH=. $(BIN)/python benchmarks/engines.py
	PYTHONPATH=. $(BIN)/python benchmarks/engines.py --warehouse spark
	$(BIN)/python benchmarks/delivery.py
	PYTHONPATH=. $(BIN)/python benchmarks/shared_budget.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/currents_throughput.py
	$(BIN)/python benchmarks/segment_refresh.py
	$(BIN)/python benchmarks/landing.py
	$(BIN)/python benchmarks/heap_connect.py

instructions: $(MADE)  ## instructions a row of match, plan and Currents, beside those that are committed; needs valgrind
	$(BIN)/python benchmarks/instructions.py

release: $(MADE)  ## the wheel, looked into and tried beside an Airflow of its own
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --group release
	$(BIN)/python tools/release.py

clean:  ## remove .venv, builds and caches
	rm -rf $(VENV) .venv31 dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew, not updated: what pyproject.toml no longer names must not stay behind.
$(MADE): pyproject.toml $(CONSTRAINTS)
$(MADE): GROUP := dev
$(MADE31): pyproject.toml constraints/airflow-3.1.txt
$(MADE31): GROUP := test
$(MADE) $(MADE31):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --upgrade pip
	$(@D)/bin/pip install --quiet --constraint $(lastword $^) --editable . --group $(GROUP)
	touch $@
