# Everything works in .venv, made from the hashed lock files on first use. `make help` lists the targets.
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
UV := uv==0.13.8
COMPILE = .venv/lock/bin/uv pip compile -q --upgrade --generate-hashes --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.ready-demo ## Build real plans for six GPU generations on this machine
	@$(BIN)/trtfarm demo

# Tests start thousands of processes: none of them compiles what another has. The folders with the longest
# tests come first in the alphabet, so that no process is left alone with one at the end.
.PHONY: test
test: export PYTHONDONTWRITEBYTECODE :=
test: lint ## Lint, then all tests, on real Redis and PostgreSQL
	@echo "test: pytest"
	@$(BIN)/pytest -n logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: lint
lint: .venv/.ready-dev ## Style, types, and who may import whom
	@echo "lint: ruff, mypy, import-linter"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

.PHONY: bench
bench: .venv/.ready-dev ## Each figure beside its peer, measured in this run
	@$(BIN)/python -m bench

.PHONY: chaos
chaos: .venv/.ready-dev ## A farm under random faults, checked: SEED= JOBS= MINUTES= FAULTS= ON=postgresql|sqlite
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(ON),--on $(ON))

.PHONY: fuzz
fuzz: .venv/.ready-dev ## Mutated models and requests, and what becomes of them: MINUTES= SEED=
	@$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

.PHONY: lock
lock: ## Pin the newest versions that pyproject.toml allows
	@echo "lock: resolving with $(UV)"
	@$(PYTHON) -m venv .venv/lock
	@.venv/lock/bin/python -m pip install -qq --disable-pip-version-check $(UV)
	@$(COMPILE) pyproject.toml --extra rtx --extra dev -o requirements-dev.txt
	@$(COMPILE) pyproject.toml --extra rtx -c requirements-dev.txt -o requirements.txt
	@printf '%s\n' editables hatchling setuptools wheel \
		| $(COMPILE) - -c requirements-dev.txt -o requirements-build.txt

.PHONY: clean
clean: ## Remove what make made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist demo-plans

# -- the environment ---------------------------------------------------------------------------------

.venv/.ready-build: requirements-build.txt
	@echo "set-up: .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@$(PIP) --require-hashes -r requirements-build.txt
	@touch $@

# Build tools are pinned too, so nothing is fetched to build the packages that come as sources.
.venv/.ready-demo: requirements.txt
.venv/.ready-dev: requirements-dev.txt
.venv/.ready-demo .venv/.ready-dev: .venv/.ready-build pyproject.toml
	@echo "set-up: installing $(filter requirements%.txt,$^)"
	@$(PIP) --require-hashes --no-build-isolation -r $(filter requirements%.txt,$^)
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
