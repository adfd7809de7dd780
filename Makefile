# make demo   track a clip that ships with the package (installs the package alone, no torch)
# make test   run the tests (installs the package with what its tests need)
# make check  lint, format and types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find src -type f -not -name '*.pyc')

.PHONY: demo test check format clean

demo: $(VENV)/.installed
	$(BIN)/siammask demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist demo-result .pytest_cache .mypy_cache .ruff_cache

# One environment, holding either a plain copy of the package or a link to src with the tools; each stamp ends the other.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt .
	rm -f $(VENV)/.dev
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	rm -f $(VENV)/.installed
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "siammask needs Python 3.11 or newer; run make with PYTHON=python3.12, say.")'
	$(PYTHON) -m venv $(VENV)
