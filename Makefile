# `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test slow lint format lock clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## create .venv with the pinned versions of requirements.lock, byte-compiled

# uv installs in seconds where pip takes a minute; --compile-bytecode halves every later start.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("stepladder needs Python 3.11 or newer; this is %d.%d. Name another one: make setup PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --requirements requirements.lock
	@$(BIN)/python -m compileall -q *.py modules datamodules callbacks tuning benchmarks scripts 2>/dev/null || true
	@touch $(READY)

quickstart: $(READY) ## train a small CNN on handwritten digits, test it, and say what to look at
	@$(BIN)/python train.py fit --config configs/digits/cnn.yaml

test: $(READY) ## run the default test suite (a few minutes)
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

slow: $(READY) ## run the tests that take longer
	@$(BIN)/python -m pytest -m slow -n auto --maxprocesses 2 --dist loadfile

lint: $(READY) ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff check --preview --select PLC2701 .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## put the code into the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## pin anew: the newest versions that pyproject.toml allows, for every platform
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links pyproject.toml --output-file requirements.lock

clean: ## remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
