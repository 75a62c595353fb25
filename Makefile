# `make verify` judges the reference, `make test` passes the tests; both set up all they need in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread a process: the models are small, and the processes are as many as the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: install verify test lint engines gpu clean

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

# Every engine lives in an environment of its own, .engines/NAME, made from requirements/NAME.txt; what cannot be had is skipped.
ENGINES := $(basename $(notdir $(filter-out %.no-deps.txt,$(wildcard requirements/*.txt))))

engines: install
	-$(MAKE) --keep-going $(ENGINES:%=.engines/%)
	$(BIN)/eagle2 engines --out reports/engines $(if $(ONLY),--only $(ONLY))

.engines/%: .engines/%/installed ;

.PRECIOUS: .engines/%/installed

.engines/%/installed: requirements/%.txt
	test -x .engines/$*/bin/python || $(PYTHON) -m venv .engines/$*
	.engines/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	test ! -f requirements/$*.no-deps.txt || .engines/$*/bin/python -m pip install --quiet --no-deps --requirement requirements/$*.no-deps.txt
	.engines/$*/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# On a machine with a CUDA device, half an hour by arithmetic; what is there already is not made again.
gpu: install
	$(BIN)/eagle2 gpu

clean:
	rm -rf $(VENV) .engines reports/latest .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
