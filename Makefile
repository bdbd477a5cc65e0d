# The commands of this project; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-gpu check format bench clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything that `make test` and `make demo` need

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python pyproject.toml constraints.txt model_repository/server.txt kernels/CMakeLists.txt $(wildcard kernels/csrc/* kernels/csrc/cpu/* kernels/csrc/cuda/*)
	$(PIP) install --quiet -c constraints.txt scikit-build-core nanobind cmake ninja
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[demo,dev]'
	$(PIP) install --quiet --no-deps --require-hashes -r model_repository/server.txt
	@touch $@

demo: install  ## train on real pictures, serve a live stream, write a report (no GPU, no server needed)
	$(BIN)/engine demo

test: install  ## run all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-gpu: install  ## the tests that need a CUDA device, alone and under compute-sanitizer where it is installed
	$(PIP) install --quiet -c constraints.txt -e '.[cuda]'
	$(BIN)/python -m pytest -m gpu
	@if command -v compute-sanitizer >/dev/null; then \
	    for tool in memcheck racecheck; do \
	        compute-sanitizer --tool $$tool --error-exitcode 9 $(BIN)/python -m pytest -m gpu || exit 1; \
	    done; \
	else echo "no compute-sanitizer on this machine: memcheck and racecheck are skipped"; fi

check: install  ## ruff, ruff format, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## throughput and latency of a bundle trained on the demo's pictures
	$(BIN)/python -m benchmarks.run

clean:  ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
