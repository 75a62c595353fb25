# `make verify` judges the reference, `make test` passes the tests; both set up all they need in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread a process: the models are small, and the processes are as many as the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: install verify test lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

verify: install
	$(BIN)/eagle2 verify $(IMPL)

test: install lint
	$(BIN)/python -m pytest -n auto

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) reports/latest .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
