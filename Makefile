# make demo | up | test | check | test-e2e | help.  Everything lives in $(VENV); nothing is installed elsewhere.
#   CUDA=1        the CUDA build of torch instead of the CPU one
#   TORCH=2.13.0  another version of torch
#   PYTHON=...    another interpreter (3.11 or newer)

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
VENV ?= .venv
TORCH ?= 2.13.0
CUDA ?=
PYTEST_ARGS ?=
DEMO_OUT ?= demo-output

# Label Studio pins other versions of our dependencies: an environment of its own.
LS_VENV ?= .venv-label-studio
LABEL_STUDIO ?= 1.23.2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
E2E_READY := $(VENV)/.ready-e2e
TORCH_READY := $(VENV)/.torch-$(TORCH)$(if $(CUDA),-cuda,)
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
CPU_INDEX := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install demo up test test-fast test-e2e check format docs picture consumers bench-env clean

help: ## Show the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

install: $(READY) ## Create .venv with everything in it

demo: $(READY) ## Render a clip, track two objects, store, draw, export, measure
	$(BIN)/edgetam-label demo --out $(DEMO_OUT)

up: ## Label Studio and the backend in containers, able to talk (needs Docker)
	sh docker/env.sh
	docker compose -f docker/compose.yaml up --build

test: $(READY) ## All tests that need no browser and no Label Studio
	$(BIN)/python -P -m pytest -m "not e2e" $(PYTEST_ARGS)

test-fast: $(READY) ## The quick ones only
	$(BIN)/python -P -m pytest -m "not e2e and not slow" $(PYTEST_ARGS)

test-e2e: $(E2E_READY) $(LS_VENV)/.ready ## The tests that start a real Label Studio and a browser
	LABEL_STUDIO_VENV=$(abspath $(LS_VENV)) $(BIN)/python -P -m pytest -m e2e $(PYTEST_ARGS)

consumers: $(READY) ## Third-party readers, so that `make test` loads our exports with them
	sh tests/consumers/install.sh $(BIN)/python

# timm and torchvision come without their own needs: those would replace the CPU build of torch.
bench-env: | $(BIN)/python ## The official EdgeTAM beside ours in .venv-bench, for benchmarks
	$(BIN)/python -m venv .venv-bench
	.venv-bench/bin/python -m pip install -q "torch==$(TORCH)+cpu" 2>/dev/null \
	  || .venv-bench/bin/python -m pip install -q "torch==$(TORCH)+cpu" --extra-index-url $(CPU_INDEX) \
	  || .venv-bench/bin/python -m pip install -q "torch==$(TORCH)"
	.venv-bench/bin/python -m pip install -q --no-deps edgetam-dimos timm torchvision==0.28.0
	.venv-bench/bin/python -m pip install -q hydra-core iopath huggingface_hub -e .

check: $(READY) ## Lint, format, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY) ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Write the reference pages from the program
	$(BIN)/python -P docs/make_reference.py

picture: demo ## Take the README's picture anew from the demo
	mkdir -p docs/images && cp $(DEMO_OUT)/overlay.png docs/images/demo.png

clean: ## Remove what the targets made (the virtual environment too)
	rm -rf $(VENV) $(LS_VENV) .venv-consumers .venv-bench demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none was found; install it (Debian: apt-get install python3 python3-venv) or run: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first: on Linux the default wheel brings gigabytes of CUDA libraries that a CPU never uses.
# The CPU wheel is taken from wherever pip looks first, then from PyTorch's own index, else as it comes.
$(TORCH_READY): | $(BIN)/python
ifeq ($(CUDA)$(filter Darwin,$(shell uname -s)),)
	$(PIP) install -q "torch==$(TORCH)+cpu" 2>/dev/null \
	  || $(PIP) install -q --retries 1 "torch==$(TORCH)+cpu" --extra-index-url $(CPU_INDEX) \
	  || $(PIP) install "torch==$(TORCH)"
else
	$(PIP) install "torch==$(TORCH)"
endif
	@rm -f $(VENV)/.torch-* && touch $@

$(LS_VENV)/.ready: | $(BIN)/python
	$(BIN)/python -m venv $(LS_VENV)
	$(LS_VENV)/bin/python -m pip --disable-pip-version-check install -q "label-studio==$(LABEL_STUDIO)"
	@touch $@

$(E2E_READY): $(READY)
	$(PIP) install -q -e ".[dev,e2e]"
	@touch $@

$(READY): pyproject.toml $(TORCH_READY)
	$(PIP) install -q -e ".[dev]"
	@touch $@
