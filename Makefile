# Set-up, demo and tests. Needs: Python 3.11 to 3.13, make, and a package registry that pip is set up for.
#   make demo          a virtual environment, the installation, and one map from the sample scene, in demo/
#   make test          the installation of what the tests need, and all tests
#   make ablation, make model-costs, make coregistration, make area-estimates, make tiling, make inference,
#   make inference-memory, make terratorch, make batch-benchmark    the long benchmarks
#   make demo PYTHON=python3.13 VENV=.venv313     with another Python, in another place

# The first Python in reach that is 3.11 to 3.13, really runs (a version manager's shim may not) and can make environments.
ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3; do \
  "$$name" -c 'import sys, venv, ensurepip; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); ok and print(sys.executable); sys.exit(not ok)' 2>/dev/null && break; done)
endif
VENV ?= .venv
# Test processes; each runs its tests on one thread.
WORKERS ?= 2
PYTEST_ARGS ?=

BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two processes with two threads each would fight over two cores.
ENVIRONMENT = OMP_NUM_THREADS=1

.PHONY: help demo test brief lint ablation model-costs coregistration area-estimates tiling inference inference-memory terratorch batch-benchmark clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, and map the sample scene into demo/"
	@echo "make test    install what the tests need, and run all tests"
	@echo "make brief   the shorter test run, for a second Python version"
	@echo "make lint    ruff check, ruff format --check, mypy"
	@echo "make ablation, make model-costs    the benchmarks of GoPT: accuracy; parameters, time and memory"
	@echo "make coregistration    the benchmark of coregister, on real pairs (GOPT_GEO_DATA)"
	@echo "make area-estimates    the benchmark of areas' confidence intervals, on simulated samples"
	@echo "make tiling  the benchmark of tiles, overlap, blending and averaging, on simulated scenes"
	@echo "make inference, make terratorch    the benchmarks of prediction: its budgets; against TerraTorch (TERRATORCH=its Python)"
	@echo "make inference-memory    the benchmark of prediction's memory: a taller scene, and a huge sparse one"
	@echo "make batch-benchmark    the benchmark of batches: two workers against one, 100,000 regions, killed clients"
	@echo "make clean   remove $(VENV)/, demo/ and caches"
	@echo "Variables: PYTHON=$(if $(PYTHON),$(PYTHON),(none found)) VENV=$(VENV) WORKERS=$(WORKERS) PYTEST_ARGS=..."

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11, 3.12 or 3.13 with venv and ensurepip found; install one (Debian: python3 python3-venv), or say make PYTHON=/path/to/python" >&2; exit 1; fi
	"$(PYTHON)" -m venv "$(VENV)"

# One stamp for what running needs, one for what development needs (which holds the former).
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing gopt-geo into $(VENV); torch is large, this takes some minutes ..."
	$(PIP_INSTALL) --editable '.[report]'
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing gopt-geo and what its tests need into $(VENV); torch is large, this takes some minutes ..."
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	@mkdir -p demo
	$(BIN)/gopt-geo predict sample_tiles/scene.tif sample_tiles/sar.tif -o demo/landcover.tif -o demo/landcover.gpkg \
	  --preview demo/preview.png --reference sample_tiles/labels.tif --overwrite
	@echo
	@echo "The map:      $(CURDIR)/demo/landcover.tif"
	@echo "Its polygons: $(CURDIR)/demo/landcover.gpkg"
	@echo "The picture:  $(CURDIR)/demo/preview.png"

test: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

brief: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python -m pytest -m brief -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	@status=0; for check in "ruff check" "ruff format --check" "mypy"; do echo "$(BIN)/$$check"; $(BIN)/$$check || status=1; done; exit $$status

# All rows of docs/benchmarks.md: some hours on two cores. What is in runs/ablation already isn't trained again.
ablation: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/ablation.py --workers $(WORKERS) --json benchmarks/results/ablation.json

model-costs: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/model_costs.py --json benchmarks/results/model_costs.json

coregistration: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/coregistration.py --workers $(WORKERS) --json benchmarks/results/coregistration.json

area-estimates: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/area_estimates.py --json benchmarks/results/area_estimates.json

# Some ten minutes of one core.
tiling: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/tiling.py --json benchmarks/results/tiling.json --figure docs/images/tiling.png

# End to end, half-empty scenes, one map however it is made, precisions, stages: most of an hour of one core.
inference: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/inference.py --json benchmarks/results/inference.json

# Peak memory of a scene 16 times as tall, and of 40,000 x 60,000 pixels with data in a few places: some 15 minutes.
inference-memory: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/inference_memory.py --json benchmarks/results/inference_memory.json

# TERRATORCH is a Python of another environment, which has TerraTorch: it pins versions of its own.
TERRATORCH ?= /tmp/terratorch/bin/python
terratorch: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/against_terratorch.py --terratorch-python $(TERRATORCH) --json benchmarks/results/terratorch.json

# Most of an hour of two cores, which nothing else should use.
batch-benchmark: $(VENV)/.installed-dev
	$(ENVIRONMENT) $(BIN)/python benchmarks/batch.py --json benchmarks/results/batch.json

clean:
	if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	rm -rf demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
