# `make train` (install, then the main job), `make test` (install, lint, types, tests); `make help` has the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_DIR ?= runs/main_job
CUDA ?= 12
GPU ?=
NOTEBOOKS ?= on
# Compiled programs are kept here, so that a second start is faster.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.PHONY: help train test test-slow lint docs bench gpu install clean

help:
	@echo "make train      install into $(VENV) and train QMIX + DIFFER on SMAX 3m (two seeds; RUN_DIR=$(RUN_DIR))"
	@echo "make test       install what tests need, then lint, types and the tests not marked slow"
	@echo "make test-slow  the tests marked slow"
	@echo "make docs       the site, into build/docs; its notebooks are run the first time (NOTEBOOKS=off: not at all)"
	@echo "make bench      all speed benchmarks, and one table of them (half an hour)"
	@echo "make gpu        install JAX for CUDA=$(CUDA) (12 or 13) and measure one GPU (eight minutes; GPU=\"losses win\": those)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: jaxshare needs Python 3.11 or newer; $(PYTHON) is older. Use: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed

train: $(VENV)/.installed
	$(BIN)/python -m jaxshare.train preset=main_job run_dir=$(RUN_DIR) resume=auto

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" --durations=25

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow --durations=10

docs: $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NOTEBOOKS=$(NOTEBOOKS) $(BIN)/python -m sphinx -E -W --keep-going -b html -d build/doctrees docs build/docs

bench: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable '.[test,bench]'
	$(BIN)/python benchmarks/speed.py

gpu: $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench,cuda$(CUDA)]'
	$(BIN)/python benchmarks/accelerator.py $(GPU)

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
