# One intent, one target; CI calls these and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.set-up

OLDEST := .venv-oldest

# Bytecode is kept, whatever the environment says: tests and studies start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

# Processes share the tests by file, in the order of tests/conftest.py: slow ones first. The slowest are named at the end.
# Of three on two cores, one mostly waits: for SLURM, a server or a process that it has started.
SHARED := -n 3 --dist loadfile --no-loadscope-reorder --durations=40 --durations-min=3
FAST := -m 'not slow and not slurm and not gpu'

REFERENCES := deepxde pina neurodiffeq jax
ACCURATE := scimba jinns deepxde pina

.PHONY: help setup run study study-small report test tests test-fast test-oldest lint types bench bench-sweep bench-references accuracy accuracy-references ui docs wheel clean

help:  ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 21

setup: $(DONE)  ## .venv with pinned dependencies; every target below does this first where it is missing

$(DONE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(DONE)  ## the main job: AD against FD, two equations, two models; at most 3 minutes
	$(BIN)/python -m pde_train --multirun experiment=first_look

study: $(DONE)  ## ten claims, a verdict each: report/report.html; goes on where it stopped
	$(BIN)/python -m pde_train.study $(WORDS)

study-small: $(DONE)  ## the same with fewer seeds, choices and steps: study-small/report/report.html
	$(BIN)/python -m pde_train.study --small $(WORDS)

report: $(DONE)  ## report/report.html once more, from the runs in the store
	$(BIN)/python -m pde_train.report

test: lint  ## lint, then types beside every test, which three processes share
	$(MAKE) --jobs types tests

tests: $(DONE)
	$(BIN)/python -m pytest $(SHARED) $(WORDS)

test-fast: $(DONE)  ## the tests that are neither slow nor need SLURM or a GPU
	$(BIN)/python -m pytest $(SHARED) $(FAST) $(WORDS)

test-oldest: $(OLDEST)/.set-up  ## the fast tests with the oldest versions that pyproject.toml allows
	$(OLDEST)/bin/python -m pytest $(SHARED) $(FAST) $(WORDS)

$(OLDEST)/.set-up: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	touch $@

lint: $(DONE)  ## style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DONE)  ## static types
	$(BIN)/mypy

bench: $(DONE)  ## timings as ratios against references of the same run
	$(BIN)/python -m benchmarks

bench-sweep: $(DONE)  ## sweeps by several launchers, under kill -9, and what tracking costs; about an hour
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.kills --stacked
	$(BIN)/python -m benchmarks.tracking

accuracy: $(DONE)  ## errors after so many CPU seconds of every row: benchmarks/ACCURACY.md; hours
	$(BIN)/python -m benchmarks.accuracy $(WORDS)

accuracy-references: $(DONE) $(ACCURATE:%=.bench/%/.set-up)  ## other libraries beside ours: "Side by side" in benchmarks/ACCURACY.md; an hour
	$(BIN)/python -m benchmarks.accuracy_references $(WORDS)

bench-references: $(REFERENCES:%=.bench/%/.set-up)  ## .bench/<library>: other libraries, which `make bench` then times too

.bench/%/.set-up: benchmarks/references/requirements-%.txt
	$(PYTHON) -m venv .bench/$*
	.bench/$*/bin/python -m pip install --quiet --requirement $<
	touch $@

ui: $(DONE)  ## the MLflow UI on http://127.0.0.1:5000, at the runs made here
	@echo "Open http://127.0.0.1:5000/#/experiments?workflowType=machine_learning, an experiment, and its Views"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow server \
	  --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000 --workers 1

docs: $(DONE)  ## the site of the documentation: docs/_build/index.html
	$(BIN)/sphinx-build -q -W -b html docs docs/_build

wheel: $(DONE)  ## dist/*.whl, configuration included
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove the environments and what builds left; runs stay
	rm -rf $(VENV) $(OLDEST) .bench dist build .pytest_cache .ruff_cache .mypy_cache
