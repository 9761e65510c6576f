# Every command a developer or a build machine needs. Each works on a fresh checkout with python3, pip and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
# Extra words for the program behind a target: make test ARGS="tests/core -k offsets"
ARGS   ?=

CODE   := $(wildcard bench consumer sandbox schemas tests tools)
# What is installed depends on these contents alone, so another content is another stamp.
KEY       := $(shell cat requirements/dev.txt pyproject.toml | cksum | tr ' ' '-')
INSTALLED := $(VENV)/.installed-$(KEY)

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run demo test check bench format schemas manifests image audit lock clean

help: ## say what each target does
	@sed -n 's/^\([a-z]*\):[^#]*## /\1 /p' Makefile | while read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## the environment in .venv, every package checked against its hash

# The environment is made without pip of its own, so that systems which ship ensurepip apart need not have it.
$(INSTALLED):
	@echo "installing the locked packages into $(VENV)"
	@test -x $(PY) || $(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(PY) --disable-pip-version-check install --quiet --require-hashes -r requirements/dev.txt
	@$(PYTHON) -m pip --python $(PY) --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

run: $(INSTALLED) ## the service, configured by the environment and .env
	@$(PY) -m consumer run $(ARGS)

demo: $(INSTALLED) ## the whole service on an embedded broker and the Zoho sandbox
	@$(PY) -m consumer demo $(ARGS)

test: $(INSTALLED) ## every test; ARGS narrows it down
	@$(PY) -m pytest -n 2 --dist worksteal $(ARGS)

check: $(INSTALLED) ## lint, format, types, room rules, dependencies, spelling, published schemas
	@echo "== lint";         $(BIN)/ruff check --quiet --output-format concise
	@echo "== format";       $(BIN)/ruff format --quiet --check --output-format concise
	@echo "== types";        $(BIN)/mypy $(CODE)
	@echo "== rooms";        $(BIN)/lint-imports --no-logo
	@echo "== dependencies"; $(BIN)/deptry .
	@echo "== spelling";     $(BIN)/codespell
	@echo "== schemas";      $(PY) -m schemas --check

format: $(INSTALLED) ## rewrite the code as the linter and the formatter want it
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format

schemas: $(INSTALLED) ## write the published schemas anew from the models
	@$(PY) -m schemas

bench: $(INSTALLED) ## measure throughput, latency and memory
	@$(PYTHON) -m pip --python $(PY) --disable-pip-version-check install --quiet --require-hashes -r requirements/bench.txt
	@$(PY) -m bench $(ARGS)

manifests: $(INSTALLED) ## render and check what Kubernetes is given
	@$(PY) -m tools.manifests $(ARGS)

image: $(INSTALLED) ## build the image and run it, without a Docker engine
	@$(PY) -m tools.image $(ARGS)

audit: $(INSTALLED) ## dangerous code, secrets, licences, known vulnerabilities
	@$(PY) -m tools.audit $(ARGS)

lock: $(INSTALLED) ## renew the locked requirements
	@$(LOCK) pyproject.toml --extra otel --output-file requirements/run.txt
	@$(LOCK) pyproject.toml --constraint requirements/run.txt --extra msk --extra otel --output-file requirements/msk.txt
	@$(LOCK) pyproject.toml --constraint requirements/run.txt --extra sandbox --output-file requirements/sandbox.txt
	@$(LOCK) pyproject.toml --constraint requirements/msk.txt --all-extras --group dev --output-file requirements/dev.txt
	@$(LOCK) --constraint requirements/dev.txt --group bench --output-file requirements/bench.txt
	@$(LOCK) --group image --output-file requirements/image.txt
	@$(LOCK) --group checks --output-file requirements/checks.txt
	@$(LOCK) --group checkov --output-file requirements/checkov.txt
	@$(LOCK) --no-deps --group compose --output-file requirements/compose.txt
	@git diff --stat -- requirements

clean: ## remove all that these targets made
	@rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
