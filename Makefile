# `make verify` judges the reference, `make test` runs the tests. Both create .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread per process: the models are small, and there are as many processes as cores.
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

# Every engine has an environment of its own, .engines/NAME, from requirements/NAME.txt. Engines that fail to install are skipped.
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

# Needs a CUDA device; estimated at half an hour. Finished parts are not repeated.
gpu: install
	$(BIN)/eagle2 gpu

clean:
	rm -rf $(VENV) .engines reports/latest .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
