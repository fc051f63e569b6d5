# make demo: watch a GPT learn to write.   make test: run the tests.   make help: the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help install demo test test-oracle lint format docs figures notebooks bench clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## make .venv with groundup in it

demo: $(VENV)/.installed  ## train a small GPT on text that comes with Python (minutes, offline)
	$(BIN)/groundup demo --overwrite

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-oracle:  ## compare with TensorFlow, PEFT and llama.cpp themselves (in .venv-oracle, about 1.5 GB)
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
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/generate.py

figures: $(VENV)/.installed-dev  ## copy the documents' figures from the committed results
	$(BIN)/python benchmarks/figures.py

docs: $(VENV)/.installed-dev  ## make docs/api/groundup.html, the reference, from the docstrings
	$(BIN)/python -m pdoc --docformat google --output-directory docs/api groundup

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
	@$(PIP) --editable '.[serve]'
	@touch $@

# The course's package is an oracle of the tests. Alone: its dependencies are TensorFlow and Jupyter,
# and an older numpy. (Its metadata stops at Python 3.13.0; it is plain Python.)
$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@$(PIP) --no-deps --ignore-requires-python llms-from-scratch
	@touch $@
