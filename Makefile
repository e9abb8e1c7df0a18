# `make demo` runs the main job, `make test` the tests; both make the environment first if it is missing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE  # each process would compile the tests anew: 15 s of a core
READY := $(VENV)/.ready

.PHONY: setup demo test test-all lint bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on all cores, where pip takes one; a library's templates are no Python
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m search supcam || test $$? = 4  # a row failed, and says why: weights that cannot be had from this machine

test: $(READY)
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -n 0 -m "not gpu and not cluster"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy search search_spaces analysis

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV)
