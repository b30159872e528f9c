# Requires Python, git and make. Start with `make demo` or `make test`; `make help` lists all targets.
SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL: # two targets must not install into .venv at once

PYTHON ?=
WORKERS ?= auto
ARGS ?=
# Selected tests (ARGS) need not reach the minimum coverage.
MIN_COVERAGE ?= $(if $(ARGS),0,90)
export PYTHON

VENV_PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
REQUIREMENTS := requirements/requirements.txt requirements/constraints.txt
SCRIPTS := $(wildcard bin/*.sh bin/*/*.sh tests/helpers/slurm/*.sh) .ci/run
# One thread per process: the test workers already use all cores.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -rfE --tb=short --disable-warnings
IN_PARALLEL := -n $(WORKERS) --maxprocesses 8 --dist worksteal

.PHONY: help demo test coverage test-slow test-slurm test-slurm-faults lint format benchmark fault-drill setup clean

help: ## List the targets and settings
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12        interpreter to create .venv with (default: the first on the path)"
	@echo "  ARGS='tests/.../test_x.py' arguments for pytest (all test targets), benchmark or"
	@echo "                           fault-drill"
	@echo "  WORKERS=4                number of test processes (default: one per core, at most 8)"

demo: $(INSTALLED) ## Install if needed, then run the demo: Banana and digits, 4 minutes on 2 cores
	@bash bin/demo.sh

test: $(INSTALLED_DEV) ## Install if needed, then run the quick tests
	@$(if $(ARGS),,echo "Takes about 4 minutes on 2 idle cores (7 minutes of CPU time).")
	@$(PYTEST) $(IN_PARALLEL) $(ARGS)

coverage: $(INSTALLED_DEV) ## Run the quick tests and measure the coverage of lossyless/ (slower)
	$(PYTEST) $(IN_PARALLEL) \
		--cov=lossyless --cov-report=term --cov-fail-under=$(MIN_COVERAGE) $(ARGS)

test-slow: $(INSTALLED_DEV) ## Run the tests marked slow, one at a time
	$(PYTEST) -m slow $(ARGS)

test-slurm: $(INSTALLED_DEV) ## Run scripts on a real Slurm on this machine (as root, Debian or Ubuntu)
	$(PYTEST) -m slurm $(ARGS)

test-slurm-faults: $(INSTALLED_DEV) ## Run the Slurm tests with killed jobs and time-outs (half an hour)
	$(PYTEST) -m slurm_slow $(ARGS)

lint: $(INSTALLED_DEV) ## Check the code (ruff) and the shell scripts (shellcheck)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	.venv/bin/shellcheck --external-sources --source-path=SCRIPTDIR:. $(SCRIPTS)

format: $(INSTALLED_DEV) ## Format the code and apply ruff's fixes
	$(VENV_PYTHON) -m ruff check --fix-only .
	$(VENV_PYTHON) -m ruff format .

benchmark: $(INSTALLED) ## Measure speed and size against references; writes results/benchmark
	@bash bin/benchmark.sh $(ARGS)

fault-drill: $(INSTALLED) ## Damage files, kill runs, fill disks, ...; count what is detected
	$(VENV_PYTHON) -m utils.fault_drill $(ARGS)

setup: $(INSTALLED) ## Only create .venv and install the dependencies

clean: ## Remove caches and build leftovers, but keep results, data and .venv
	find . \( -name .venv -o -name .git -o -path ./results -o -path ./data \) -prune -o \
		-type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .coverage .coverage.* htmlcov build dist *.egg-info

$(INSTALLED): $(REQUIREMENTS) bin/setup.sh pyproject.toml
	@bash bin/setup.sh

$(INSTALLED_DEV): $(REQUIREMENTS) requirements/dev.txt bin/setup.sh pyproject.toml
	@bash bin/setup.sh --dev
