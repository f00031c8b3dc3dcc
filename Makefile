# `make help` explains every target.
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
export VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo up test unit faults soak lint format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything that running needs into $(VENV)
	@scripts/setup.sh

demo: setup ## start Sparseboard and train a real sparse autoencoder (ARGS="--port 9000" and the like are passed on)
	@$(BIN)/sparseboard up --demo $(ARGS)

up: setup ## start Sparseboard for daily use, without the demo run
	@$(BIN)/sparseboard up $(ARGS)

test: setup-test lint ## run everything: checks, unit, contracts, integration, browser
	@$(BIN)/pytest -n auto --dist loadfile $(ARGS)

unit: setup-test ## run the fast tests alone, without services and browser
	@$(BIN)/pytest -n auto -m "not integration and not e2e and not gpu" $(ARGS)

faults: setup-test ## break a real deployment in every way of docs/reliability.md (about half an hour)
	@$(BIN)/pytest -m faults $(ARGS)

SECONDS ?= 600
soak: setup-test ## faults at random for SECONDS=600; prints accepted runs, faults injected, lost (ARGS="--engine postgres")
	@PYTHONPATH=tests/support:$$PYTHONPATH $(BIN)/python tests/faults/soak.py --seconds $(SECONDS) $(ARGS)

lint: setup-test ## check style, types and import rules
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

format: setup-test ## rewrite the code in the house style
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

lock: setup-test ## resolve pyproject.toml into the lock files anew
	@scripts/lock.sh

clean: ## remove what set-up made; data folders stay
	@rm -rf $(VENV) node_modules web/static/vendor web/static/bundles *.egg-info .ruff_cache .mypy_cache .pytest_cache .import_linter_cache

.PHONY: setup-test
setup-test:
	@scripts/setup.sh test
