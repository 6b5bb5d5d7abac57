# Every target sets up .venv by itself: with plain venv and pip, from the versions in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-all lint bench results docs dist check-install clean

demo: .venv/installed
	$(BIN)/diffstack demo --out demo

PYTEST := $(BIN)/python -m pytest -q -n auto --dist worksteal

test: .venv/installed
	$(PYTEST) --ignore tests/test_fast.py

# A witness for every family, framework and method, for after every edit.
test-fast: .venv/installed
	$(PYTEST) tests/test_fast.py tests/test_mirror.py tests/test_families_table.py

# The full product of shapes, dtypes and methods, all of it compiled as for users.
test-all: .venv/installed
	DIFFSTACK_FULL=1 $(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m benchmarks

# What networks with stacks learn: minutes a row, and it goes on from where it was stopped. ROWS="copy" runs one of them.
results: .venv/installed
	$(BIN)/python -m results $(ROWS)

# The wheel and the source distribution, in dist/.
dist: .venv/installed
	rm -rf dist
	$(BIN)/python -m build --no-isolation

# The wheel in fresh environments, on every Python of this machine, with the lowest versions and the newest.
check-install: dist
	$(BIN)/python -m release

# The pages as a site in site/, which loads nothing from elsewhere. It needs neither framework, so its .venv-docs is small.
docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build
	.venv-docs/bin/python docs/tools/check.py site

clean:
	rm -rf .venv .venv-docs demo dist site

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (this takes a minute or two, once)"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

.venv-docs/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv-docs (this takes a minute, once)"
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	@touch $@
