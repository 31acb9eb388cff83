# `make demo` and `make test` do all their set-up. Every target passes ARGS on: make demo ARGS="--speakers 5"
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
unexport PYTHONDONTWRITEBYTECODE  # a service that must be compiled at each start starts late
PACKAGES := contracts capture mixer gateway ops

.PHONY: help install demo up test check lint bench soak lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

install: $(STAMP) ## Install everything into .venv (hash-checked)

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "Installing into .venv (once; takes about a minute) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Retold needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m mixer.kernel 2>/dev/null || { echo "No C compiler here: getting one (100 MB) ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	    -r requirements/compiler.txt && $(BIN)/python -m mixer.kernel; }
	@touch $@

demo: $(STAMP) ## Record, mix and download a call on this machine, without a Discord account
	@$(BIN)/retold demo $(ARGS)

up: $(STAMP) ## Run everything on this machine (records with RETOLD_DISCORD_TOKEN)
	@$(BIN)/retold up $(ARGS)

# Most tests wait for something that takes its time (people talk), so several files run side by side; those that are
# judged by the clock run alone. What fails on a machine that has other things to do gets one more try by itself, and
# both are shown. Exit code 5 means that ARGS left no test.
PYTEST := $(BIN)/python -m pytest
SCOPE := not soak and not long
tried = @echo '$(PYTEST) $(1) $(2) $(ARGS)'; $(PYTEST) $(1) $(2) $(ARGS) || case $$? in 5) ;; \
  1) echo "What failed, once more, one after the other:"; $(PYTEST) $(1) --last-failed $(ARGS) ;; *) exit 1 ;; esac

test: $(STAMP) ## Run the tests, but for those that take long
	$(call tried,-m "$(SCOPE) and not alone",--numprocesses 4 --dist loadfile)
	$(call tried,-m "$(SCOPE) and alone")

lint: $(STAMP) ## Format, lint, types, layers, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry . --no-ansi

check: lint ## Everything that CI runs: lint and every test but soaks
	@$(MAKE) --no-print-directory test SCOPE="not soak"

bench: $(STAMP) ## Measure; ARGS=--json prints one row a line
	@$(BIN)/python -m tests.bench $(ARGS)

soak: $(STAMP) ## Runs of many minutes
	$(BIN)/python -m pytest -m soak --timeout 0 $(ARGS)

lock: ## Pin the requirements anew, with hashes (needs uv)
	@for extra in capture mixer gateway ops; do \
	  uv pip compile pyproject.toml --extra $$extra $(LOCK) -o requirements/$$extra.txt || exit 1; done
	@uv pip compile pyproject.toml --extra ops --group dev $(LOCK) -o requirements/dev.txt
	@uv pip compile --group pyproject.toml:compiler $(LOCK) -o requirements/compiler.txt
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate

clean: ## Remove what was installed and made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis retold-demo build dist
