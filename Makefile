# The only command surface. CI runs `make check` and `make test`; people run the same.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DISTRIBUTIONS := libs/common libs/relay libs/client services/edge services/config services/metering services/billing services/console services/standalone
SOURCES := $(wildcard libs/*/src) $(wildcard services/*/src)

# In Rust where there is cargo, and said where there is none.
NATIVE := $(BIN)/python libs/relay/build_native.py

.PHONY: help demo run test fault fuzz check fmt bench lock vendor screenshots schemas up down up-check clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp holds the hash of what was installed: a set-up is reused until the locks or the
# distributions change, and a half-done set-up is done again.
RUN_STAMP := $(VENV)/.run-$(shell cat requirements.lock libs/*/pyproject.toml services/*/pyproject.toml libs/relay/build_native.py libs/relay/native/Cargo.* $$(find libs/relay/native/src -name "*.rs" | sort) | sha256sum | cut -c1-16)
DEV_STAMP := $(VENV)/.dev-$(shell cat requirements.lock requirements-dev.lock libs/*/pyproject.toml services/*/pyproject.toml | sha256sum | cut -c1-16)

$(RUN_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Handoff needs Python 3.11 or newer; this is " + sys.version)'
	@echo "setting up $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(NATIVE)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(addprefix --editable ,$(DISTRIBUTIONS))
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	@echo "adding what checks and tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(RUN_STAMP) ## the whole system on this machine: real clients, live usage, a proved invoice (args="--keep" leaves it running)
	@$(BIN)/handoff demo $(args)

run: $(RUN_STAMP) ## the embedded system in the foreground, with an example to look at (args=--no-example: empty)
	@$(BIN)/handoff up --example $(args)

test: $(DEV_STAMP) ## everything the tests need, and all suites (args="-k name" narrows)
	@tests/support/install.sh $(BIN)/python
	@tests/support/install-kustomize.sh
	@$(NATIVE)
	@$(NATIVE) test
	@$(BIN)/python -m pytest tests -n auto --dist loadgroup $(args)

fault: $(DEV_STAMP) ## the long form of the fault tests: each part killed five times, ten minutes without a broker
	@tests/support/install.sh $(BIN)/python
	@HANDOFF_TEST_FAULT_ROUNDS=5 HANDOFF_TEST_AWAY_SECONDS=600 HANDOFF_TEST_CONNECTIONS=1000 \
	  HANDOFF_TEST_STORM_SECONDS=120 HANDOFF_TEST_SILENT=10000 \
	  $(BIN)/python -m pytest tests/fault tests/integration/edge/test_floods.py $(args)

fuzz: $(DEV_STAMP) ## heads, answers, frames and PROXY headers, spoiled for ten minutes each (seconds=60 for one)
	@HANDOFF_FUZZ_SECONDS=$(or $(seconds),600) $(BIN)/python -m pytest tests/fuzz --timeout 0 -n auto -rP $(args)
	@HANDOFF_FUZZ_SECONDS=$(or $(seconds),600) $(NATIVE) test
	@HANDOFF_FUZZ_SECONDS=5 $(NATIVE) miri

check: $(DEV_STAMP) ## format, lint, types, import rules, schemas up to date
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(SOURCES) tests $(wildcard benchmarks/*.py) $(wildcard benchmarks/*/*.py) $(wildcard deploy/docker/*.py)
	@$(BIN)/lint-imports --no-cache
	@$(NATIVE) check
	@$(BIN)/python -m handoff_common.schemas --check libs/common/schemas

fmt: $(DEV_STAMP) ## format and sort imports
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

schemas: $(DEV_STAMP) ## export the JSON Schemas of the events
	@$(BIN)/python -m handoff_common.schemas libs/common/schemas

bench: $(DEV_STAMP) ## one benchmark as a table: make bench n=relay
	@test -n "$(n)" || { echo "name one: $$(ls benchmarks/*.py | xargs -n1 basename | sed 's/\.py//' | tr '\n' ' ')"; exit 2; }
	@$(BIN)/python benchmarks/$(n).py $(args)

lock: $(DEV_STAMP) ## pin and hash requirements.in and requirements-dev.in
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock requirements.in
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements-dev.lock requirements-dev.in

vendor: ## take the web interface's files of others from npm, as services/console/vendor pins them
	@cd services/console/vendor && npm ci --ignore-scripts --silent && $(CURDIR)/$(BIN)/python take.py && rm -rf node_modules

screenshots: $(DEV_STAMP) ## pictures of each page of the web interface into docs/console; n="NAME...": only of some
	@tests/support/install.sh $(BIN)/python
	@PYTHONPATH=tests $(BIN)/python -m support.screenshots docs/console $(n)

up: ## the whole system in containers, on Kafka and Postgres: build, start, wait until all is healthy
	@docker compose build --quiet
	@docker compose up --detach --wait --wait-timeout 300 $(args) || { docker compose ps --all; exit 1; }
	@echo "  web interface   http://$$(docker compose port gateway 8000)/  (sign in with the operator token)"
	@echo "  clients         ws://$$(docker compose port edge 8080)"
	@echo "  API             http://$$(docker compose port gateway 8000)/docs"
	@echo "  edge's health   http://$$(docker compose port edge 8081)/readyz"
	@echo "  demo's origin   origin:9000, as a backend's address and port"
	@echo "  operator token  docker compose exec config cat /var/lib/handoff/operator-token"

down: ## stop what make up started, drain first (args="-v" removes the volumes too)
	@docker compose down $(args)

up-check: $(RUN_STAMP) ## after make up on empty volumes: clients through it, and each part killed under them
	@$(BIN)/python tests/e2e/compose/check.py $(args)

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
