# Every command sets up what it needs; `make help` lists them.
SHELL := /bin/bash
PORTFOLIO ?=
PORT ?=
OPTIONS ?=
PYTHON ?= python3

export DAGSTER_DISABLE_TELEMETRY = 1
export MLFLOW_DISABLE_TELEMETRY = true
export BENTOML_DO_NOT_TRACK = True
export DO_NOT_TRACK = true

BIN := .venv/bin
READY := .venv/.locked

.PHONY: help setup demo up serve loop test test-full check bench lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## the environment, in .venv

$(READY): requirements.lock pyproject.toml
	@echo "setting up the environment in .venv (once)"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, e.g. make PYTHON=python3.11"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## loan book to printed decision; PORTFOLIO=german_credit, OPTIONS='path=loans.csv' or 'rows=60000 seed=3'
	@$(BIN)/cde demo $(PORTFOLIO) $(foreach option,$(OPTIONS),--option '$(option)')

up: $(READY) ## Dagster on 3000, MLflow on 5000, pages on 8001, scoring on 8000, until Ctrl-C
	@$(BIN)/cde up $(PORTFOLIO) $(foreach option,$(OPTIONS),--option '$(option)')

serve: $(READY) ## the promoted bento in the foreground
	@$(BIN)/cde serve $(PORTFOLIO) $(if $(PORT),--port $(PORT))

loop: $(READY) ## drift, retraining, experiment, promotion and a harmful change, unattended; months in minutes
	@$(BIN)/cde loop

test: $(READY) ## every test of the quick set
	@$(BIN)/python -m pytest -m 'not slow' -n auto --dist loadfile

test-full: $(READY) ## all tests, with the long ones
	@$(BIN)/python -m pytest

check: $(READY) ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(READY) ## speed beside other ways to serve the same model, into benchmarks/latest.json; needs wrk (apt-get install wrk)
	@$(BIN)/python -W ignore -m benchmarks

lock: $(READY) ## renew both lock files
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock
	$(BIN)/uv pip compile --group bento --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements-bento.lock

clean: ## forget all state in CDE_HOME (.cde)
	rm -rf "$${CDE_HOME:-.cde}"
