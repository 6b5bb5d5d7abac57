# Every target sets up .venv by itself: with plain venv and pip, from the versions in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-all lint bench clean

demo: .venv/installed
	$(BIN)/diffstack demo --out demo

test: .venv/installed
	$(BIN)/python -m pytest -q -n auto --dist worksteal --ignore tests/test_fast.py

# A witness for every family, framework and method, for after every edit.
test-fast: .venv/installed
	$(BIN)/python -m pytest -q -n auto tests/test_fast.py tests/test_mirror.py tests/test_families_table.py

# The full product of shapes, dtypes and methods.
test-all: .venv/installed
	DIFFSTACK_FULL=1 $(BIN)/python -m pytest -q -n auto

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv demo

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (this takes a minute or two, once)"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@
