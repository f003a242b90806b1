# Two commands: `make demo` and `make test`. Each sets up what it needs, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test slow docs lint types contracts check clean

demo: $(READY)  ## train and evaluate both adapters on data made here
	PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh demo

test: $(READY)  ## the default test lane
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

slow: $(READY)  ## the tests that take longer
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2

docs: $(READY)  ## the pages that are made from the code
	$(BIN)/python docs/methods.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

check: lint types contracts test  ## all that CI asks

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV); the first time takes a few minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

clean:  ## forget the set-up and the demo
	rm -rf $(VENV) demo
