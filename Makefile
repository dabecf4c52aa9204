PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

help: ## show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

venv: .venv/installed ## make .venv with everything in it
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

quickstart: venv ## pretrain four encoders on the samples and see what it bought
	$(BIN)/toolkit quickstart --output_dir runs/quickstart

test: venv ## the tests, some minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

test-slow: venv ## the long tests, with the data shelf in TOOLKIT_DATA
	$(BIN)/python -m pytest -m slow

lint: venv ## style, types, the order of imports, undeclared dependencies, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture

bench: venv ## every scripts/bench_*.py
	@for script in scripts/bench_*.py; do [ ! -e $$script ] || $(BIN)/python $$script || exit 1; done

clean: ## delete .venv and caches, not runs
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache *.egg-info

.PHONY: help venv quickstart test test-slow lint bench clean
