# Needs only make, /bin/sh and Python 3.11 or newer: everything else goes into .venv.
# PYTHON=/path/to/python chooses the interpreter; it counts when .venv is made (`make clean` removes it).

PYTHON ?=
PY = .venv/bin/python
PIP = $(PY) -m pip --disable-pip-version-check --no-input
CLIENT = client/pyproject.toml $(wildcard client/src/guichet/*.py client/src/guichet/*/*.py)
NEWER = import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < $(1))
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
ARGS =

.DEFAULT_GOAL := help
.PHONY: help run test coverage faults e2e-compose check format format-check lint types lock bench bench-csv migration clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run: .venv/.installed ## Start everything on this machine (RUNTIME=sync, PORT=, FLOWER_PORT=, DATA_DIR=)
	@exec $(PY) -m scripts.run

test: .venv/.installed-dev ## Run the tests (ARGS="-k name" for some of them)
	$(PY) -m pytest -m "not long" $(ARGS)

coverage: .venv/.installed-dev ## Run the tests and measure what they cover, also in the processes that they start
	$(PY) -m pytest -m "not long" --cov --cov-branch --cov-report=term --cov-report=xml $(ARGS)

faults: .venv/.installed-dev ## Kill workers in the middle of jobs and files, let rows crash and hang: the long tests
	$(PY) -m pytest -m long $(ARGS)

check: format-check lint types test ## Everything that CI runs

format: .venv/.installed-dev ## Format the code and mend what the linter can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

format-check: .venv/.installed-dev
	$(PY) -m ruff format --check .

lint: .venv/.installed-dev ## Lint
	$(PY) -m ruff check .

types: .venv/.installed-dev ## Check the types
	$(PY) -m mypy

e2e-compose: .venv/.installed ## Start docker-compose.yml, use it, break it under load; writes docs/compose.md (ARGS="--only redis")
	$(PY) -m compose.e2e $(ARGS)

bench: .venv/.installed-dev ## Measure the queue
	$(PY) benchmarks/queue.py $(ARGS)

bench-csv: .venv/.installed-dev ## Measure CSV files
	$(PY) benchmarks/bulk.py $(ARGS)

migration: .venv/.installed ## Write the next migration from the tables: make migration m="add outcomes"
	@exec $(PY) -m scripts.migration "$(m)"

lock: .venv/.installed-dev ## Compile requirements*.in to pinned, hashed files (UPGRADE=--upgrade for newer ones)
	$(LOCK) $(UPGRADE) requirements-dev.in -o requirements-dev.txt
	for name in requirements requirements/api requirements/sync requirements/worker; do \
	    cp requirements-dev.txt $$name.txt && $(LOCK) $$name.in -o $$name.txt || exit 1; \
	done  # uv keeps the pins that it finds in its output: every file has the same ones

clean: ## Remove .venv and caches; the data (.guichet) stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* coverage.xml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python before 3.13 comes first: for 3.11 and 3.12 there is a wheel with a Redis in it.
$(PY):
	@if [ -n "$(PYTHON)" ]; then \
	    python="$(PYTHON)"; \
	    "$$python" -c '$(call NEWER,(4,))' 2>/dev/null || { \
	        echo "make: PYTHON=$$python is not a Python 3.11 or newer with venv." >&2; exit 1; }; \
	else \
	    python=; \
	    for limit in '(3, 13)' '(4,)'; do \
	        for name in python3 python3.12 python3.11 python3.13 python3.14 python; do \
	            if [ -z "$$python" ] && $$name -c "$(call NEWER,$$limit)" 2>/dev/null; then python=$$name; fi; \
	        done; \
	    done; \
	    [ -n "$$python" ] || { \
	        echo "make: no Python 3.11 or newer with venv was found: install one, or say where it is: make PYTHON=/path/to/python" >&2; \
	        exit 1; }; \
	fi; \
	"$$python" -m venv --clear .venv

.venv/.installed: requirements.txt $(CLIENT) | $(PY)
	@echo "installing requirements.txt into .venv (some minutes the first time)"
	@$(PIP) install --quiet --require-hashes -r requirements.txt
	@$(PIP) install --quiet --no-index --no-deps --no-build-isolation --force-reinstall ./client
	@touch $@

.venv/.installed-dev: requirements-dev.txt $(CLIENT) | $(PY)
	@echo "installing requirements-dev.txt into .venv (some minutes the first time)"
	@$(PIP) install --quiet --require-hashes -r requirements-dev.txt
	@$(PIP) install --quiet --no-index --no-deps --no-build-isolation --force-reinstall ./client
	@touch $@
