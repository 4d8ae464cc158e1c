# One-word tasks. `make run` and `make test` need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MINUTES ?= 10
SCALES ?= S M
PEERS ?= .venv-bench

.PHONY: run up install test soak bench guard lint types lock clean help

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

bench: install $(PEERS)/installed ## How fast it is, beside COPY, dlt and sling, at SCALES (S M); writes docs/bench.json and .svg
	@$(BIN)/totesys bench $(foreach scale,$(SCALES),--scale $(scale)) --samples 100 --peers $(PEERS) \
		--json docs/bench.json --svg docs/bench.svg

guard: install ## Measure at the real size; fails if a ratio is over a quarter worse than in docs/bench.json
	@$(BIN)/totesys bench --guard docs/bench.json

$(PEERS)/installed: bench-requirements.txt
	@echo "Creating $(PEERS), the environment of the tools to compare with"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r bench-requirements.txt
	@touch $@

lint: install ## ruff: rules and format; bandit: security
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive totesys_assets

types: install ## mypy, strict
	@$(BIN)/mypy

lock: ## Rewrite requirements.lock and bench-requirements.txt (needs uv)
	uv pip compile pyproject.toml --extra dev --extra build --universal --python-version 3.11 --generate-hashes \
		--no-strip-extras --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet -o requirements.lock
	uv pip compile bench-requirements.in --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet -o bench-requirements.txt

clean: ## Remove the environment and the local state
	rm -rf $(VENV) $(PEERS) .totesys

help: ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12
