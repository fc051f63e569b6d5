# make demo: watch a GPT learn to write.   make test: run the tests.   make help: the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help install demo test test-oracle lint format notebooks bench clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## make .venv with groundup in it

demo: $(VENV)/.installed  ## train a small GPT on text that comes with Python (minutes, offline)
	$(BIN)/groundup demo --overwrite

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/python -m pytest

test-oracle:  ## compare with TensorFlow and PEFT themselves (in .venv-oracle, about 1.5 GB)
	$(MAKE) VENV=.venv-oracle .venv-oracle/.installed-dev
	@.venv-oracle/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[oracle]'
	.venv-oracle/bin/python -m pytest -m oracle

lint: $(VENV)/.installed-dev  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/.installed-dev  ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: $(VENV)/.installed-dev  ## run the notebooks and write what they show into them
	$(BIN)/python notebooks/execute.py

bench: $(VENV)/.installed-dev  ## measure side by side with transformers and the course's code
	@$(PIP) --no-deps llms-from-scratch==1.0.19
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/generate.py

clean:  ## remove .venv and caches (runs/ stays)
	rm -rf $(VENV) .venv-oracle .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "groundup needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone: its pinned version then satisfies everything else.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(PIP) torch
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@touch $@
