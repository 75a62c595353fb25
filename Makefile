# `make verify` judges the reference decoder; `make test` runs linters and tests. Both first install everything into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread per process: the models are small, and there is one process per core.
export OMP_NUM_THREADS ?= 1

.PHONY: install verify test lint docs engines gpu clean

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
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# The documentation site, build/docs/index.html. Warnings are errors, as in the tests.
docs: install
	$(BIN)/sphinx-build --fail-on-warning --keep-going --builder html docs build/docs

# Every engine has its own environment, .engines/NAME, built from requirements/NAME.txt. Engines that cannot be installed are skipped.
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

# For a machine with a CUDA device; estimated at half an hour. Finished steps of an interrupted run are not repeated.
gpu: install
	$(BIN)/eagle2 gpu

clean:
	rm -rf $(VENV) .engines build reports/latest .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
