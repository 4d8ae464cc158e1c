# One-word tasks. `make run` and `make test` need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MINUTES ?= 10

.PHONY: run up install test soak lint types lock clean help

run: install ## Try it: ToteSys, lake, star and warehouse on this machine; prints what was done
	@$(BIN)/totesys refresh

up: install ## Everything live, with the Dagster UI; Ctrl-C stops it
	@$(BIN)/totesys up

install: $(VENV)/installed ## The environment, from the hash-pinned lock file

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@echo "Creating $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: install lint types ## Lint, types, and all tests with coverage
	@$(BIN)/python -m pytest -n logical --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=90

soak: install ## Every kill and fault, then random interleavings until MINUTES (10) are over, from a new SEED or the one given; writes soak-report.md
	@$(BIN)/python -m pytest -q -n logical -m thorough
	@$(BIN)/python -m totesys_assets_tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: install ## ruff: rules and format; bandit: security
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive totesys_assets

types: install ## mypy, strict
	@$(BIN)/mypy

lock: ## Rewrite requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --extra build --universal --python-version 3.11 --generate-hashes \
		--no-strip-extras --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet -o requirements.lock

clean: ## Remove the environment and the local state
	rm -rf $(VENV) .totesys

help: ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12
