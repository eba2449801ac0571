# Two commands on a fresh machine: `make demo` and `make test`. What they run is defined in pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup demo test contract fmt lint keywords matrix bench pictures notebooks docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/vaearr demo $(DEMO)

test: setup lint
	$(BIN)/pytest --numprocesses auto --dist worksteal

contract: setup
	$(BIN)/pytest tests/contract --numprocesses auto --dist worksteal -m "not slow and not long and not benchmarks"

fmt: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

keywords: setup
	$(BIN)/python -m tests.keywords

matrix:
	PYTHON=$(PYTHON) .ci/matrix

bench: setup
	$(BIN)/pytest tests/benchmarks -m benchmarks -s

pictures: setup
	$(BIN)/python notebooks/pictures/make.py
	$(BIN)/python notebooks/pictures/gallery.py

notebooks: setup
	$(BIN)/python -m notebooks.store

docs: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV)
