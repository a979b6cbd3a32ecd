# Needs Python 3.11 or 3.12 and make; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: quickstart leaky test test-full lint

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3,11) <= sys.version_info[:2] < (3,13), "Python 3.11 or 3.12 is needed, set PYTHON="'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: .venv/ready  ## synthetic clinic notes to a verdict
	$(BIN)/python examples/quickstart/generate.py
	$(BIN)/dpmlm init examples/quickstart
	$(BIN)/dpmlm run examples/quickstart/run.yaml
	$(BIN)/dpmlm verify examples/quickstart/work/bundle --trusted-keys examples/quickstart/keys/trusted

leaky: .venv/ready  ## the same notes without privacy: the gate must say FAIL (exit status 1)
	$(BIN)/python examples/quickstart/generate.py
	$(BIN)/dpmlm init examples/leaky
	$(BIN)/dpmlm run examples/leaky/run.yaml; test $$? -eq 1

# Two workers on two cores: threads of their own would only wait for each other.
test test-full: export OMP_NUM_THREADS = 1

test: .venv/ready  ## the fast suite
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not full' -q

test-full: .venv/ready  ## everything, the exhaustive suites too; takes MLflow, datasets and Kubernetes' schemas along
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,mlflow-server,datasets,kubernetes]'
	$(BIN)/python -m pytest -n 2 --dist loadgroup -q

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
