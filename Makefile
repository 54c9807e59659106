# Two commands: `make quickstart` and `make test`. Both make .venv first, from pyproject.toml alone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Python may keep what it compiled: the tests start many processes, and each would compile torch again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart test chaos lint docs clean

quickstart: $(STAMP)
	$(BIN)/mypt quickstart

test: lint
	$(BIN)/pytest -n 2 --dist worksteal

# The long proofs: a thousand kills, and all else that may happen to a run. Half an hour on two cores.
chaos: $(STAMP)
	MYPT_CHAOS=1 $(BIN)/pytest -n 2 --dist worksteal --timeout 7200 tests/reliability tests/hostile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python docs/generate.py

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@echo 'Installing into $(VENV): about 1 GB, a few minutes, once.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
