# `make up` and `make test` are all that most people need; both install what is missing first.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
LOCKS := $(wildcard requirements/*.lock)
STAMP := .venv/.installed

.PHONY: up test check format protos lock docs bench-gateway bench-engine bench-limits bench-usage bench-ledger faults test-cluster test-node charts images clean

up: $(STAMP) ## install, prepare and run the platform; EDGE=envoy: with an Envoy in front
	@exec $(BIN)/modelplane up $(if $(EDGE),--edge $(EDGE))

test: $(STAMP) ## install and run all tests, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

check: $(STAMP) ## everything that can be checked without running the platform
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python protos/generate.py --check
	$(BIN)/pytest -q tests/shape

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(STAMP) ## generate the Python side of the contracts
	$(BIN)/python protos/generate.py

lock: ## resolve requirements/*.in again and pin every package by version and hash
	requirements/lock.sh $(abspath $(BIN))/uv

docs: $(STAMP) ## make the reference pages from the code
	$(BIN)/python docs/generate.py

bench-gateway: $(STAMP) ## side by side with LiteLLM's proxy and plain Envoy
	$(BIN)/python -m benchmarks.gateway

bench-engine: $(STAMP) ## a real engine behind the platform, beside the same engine alone
	$(BIN)/python -m benchmarks.engine

bench-limits: $(STAMP) ## the rate limiter beside a plain Lua bucket and LiteLLM's
	$(BIN)/python -m benchmarks.limits

bench-usage: $(STAMP) ## reports on a month's usage, as it grows from 1 to 10 million records
	$(BIN)/python -m benchmarks.reports

bench-ledger: $(STAMP) ## what metering costs, and how fast usage gets into the ledger, beside single rows
	$(BIN)/python -m benchmarks.ledger

faults: $(STAMP) ## kill every process again and again under load, then audit the ledger: ROUNDS=40
	MODELPLANE_FAULTS_ROUNDS=$(or $(ROUNDS),40) $(BIN)/pytest -q -s tests/faults

test-cluster: $(STAMP) ## a real Kubernetes control plane with played nodes: the chart, its operators, 1,000 pods
	$(BIN)/python -m tests.cluster control-plane

test-node: $(STAMP) ## a real node too, as root: the platform's images installed, upgraded and shaken under load
	$(BIN)/python -m tests.cluster node

charts: $(STAMP) ## make what the chart takes from the code: the table of services, the dashboards
	$(BIN)/python -m charts.generate
	$(BIN)/python -m charts.dashboards

images: ## build the container images with docker, else buildah: IMAGES="--local-base --archive build/images"
	$(PYTHON) -m images.build $(IMAGES)

clean: ## remove the environment and the caches of this folder; the state in .modelplane stays
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Modelplane needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the environment into .venv (about 3 GB to download the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements/bootstrap.lock
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes \
	  -r requirements/platform.lock -r requirements/engine.lock -r requirements/dev.lock
	@# xds-protos carries an older copy of opentelemetry-proto's modules: the right ones go over it.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes \
	  --reinstall-package opentelemetry-proto -r requirements/platform.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
	@echo "The environment is complete."
