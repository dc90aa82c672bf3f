# Needs make and python3 (3.11 or newer); everything else is installed into $(VENV) from the locks.
#   make demo                     the main job, end to end
#   make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
SHARED ?= $(wildcard ../shared)
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=
PYTEST_MARKS ?= not slow and not kubernetes
PROFILES ?=

bin := $(VENV)/bin
stamp := $(VENV)/.installed-dev
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
uv_compile := $(bin)/uv --no-config pip compile --universal --python-version 3.11 --fork-strategy requires-python \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-strip-extras \
	--group build --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo docs dagster test soak accept lint format lock upgrade clean image image-check terraform-check up down

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) SHARED=$(SHARED) PYTEST_WORKERS=$(PYTEST_WORKERS) PYTEST_ARGS=$(PYTEST_ARGS)"

install: $(stamp) ## the environment, with locked dependencies

# Made again when the lock or the project's metadata changes. The stamp is written last, so that an install
# that was cut short is done again.
$(stamp): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "geofield needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`." >&2; \
		echo "Name another one: make $(or $(MAKECMDGOALS),install) PYTHON=python3.13" >&2; exit 1; }
	@test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing locked dependencies into $(VENV) (a few minutes the first time)"
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(stamp) ## two boxes, a month of days, late fields: a summary and a picture
	$(bin)/python -m orchestrate.demo

# The records of Dagster, in SQLite, beside the demo's store; partitions from the demo's first day on.
dagster: $(stamp) ## Dagster on the demo's store: http://127.0.0.1:3000
	@test -f demo-store/geofield.json || $(MAKE) demo
	@mkdir -p demo-dagster && cp deploy/dagster/local.yaml demo-dagster/dagster.yaml
	DAGSTER_HOME="$(CURDIR)/demo-dagster" GEOFIELD_STORE="$(CURDIR)/demo-store" GEOFIELD_DAGSTER_START=2025-05-01 \
		$(bin)/dagster dev --module-name orchestrate.dagster --host 127.0.0.1

docs: $(stamp) ## the site, warnings are errors: docs/_build/html/index.html
	$(bin)/python -m sphinx -W --keep-going -q -b html -d docs/_build/trees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# `--shared=`, with the equals sign: after a blank, pytest takes the folder for a place of tests and looks for its
# configuration there.
test: $(stamp) ## the tests; those on real data too where SHARED (../shared) is
	$(bin)/python -m pytest -m "$(PYTEST_MARKS)" -n $(PYTEST_WORKERS) --dist worksteal $(if $(SHARED),--shared="$(SHARED)") $(PYTEST_ARGS)

soak: $(stamp) ## kills, races, stopped writers, faults of the network; GEOFIELD_SOAK=1 for long searches
	$(bin)/python -m pytest -m slow $(PYTEST_ARGS)

accept: $(stamp) ## the acceptance checks on real data: make accept SHARED=DIR
	@test -n "$(SHARED)" || { echo "Say where the real data is: make accept SHARED=DIR" >&2; exit 2; }
	$(bin)/python -m pytest -m accept --shared="$(SHARED)" $(PYTEST_ARGS)

# All of them, whatever the first one says.
lint: $(stamp) ## ruff, mypy, import rules
	@failed=; for check in "ruff check ." "ruff format --check ." mypy lint-imports; do \
		echo "== $$check"; $(bin)/$$check || failed="$$failed [$$check]"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

format: $(stamp) ## put files into the form that `make lint` asks for
	$(bin)/ruff check --fix-only --quiet .
	$(bin)/ruff format .

# `make lock` keeps the versions that are locked as far as pyproject.toml admits them; `make upgrade` takes the newest.
lock: $(bin)/uv ## bring the locks up to date with pyproject.toml
	$(uv_compile) $(UPGRADE) pyproject.toml --extra dev --extra plots -o requirements-dev.txt
	$(uv_compile) $(UPGRADE) pyproject.toml --extra plots -c requirements-dev.txt -o requirements.txt
	$(uv_compile) $(UPGRADE) pyproject.toml --extra kube --extra plots -c requirements.txt -o requirements-kube.txt
	$(uv_compile) $(UPGRADE) pyproject.toml --extra dagster --extra plots -c requirements.txt -o requirements-dagster.txt

upgrade: ## the locks with the newest versions
	@$(MAKE) lock UPGRADE=--upgrade

# Not by way of $(stamp): a lock that no longer fits pyproject.toml must not stand in the way of making it anew.
$(bin)/uv:
	@test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	@$(bin)/python -m pip install --quiet --disable-pip-version-check uv

image: ## the container image, geofield:VERSION
	docker build --tag geofield:$(version) .

image-check: ## build the image and try it as it runs: not as root, on a read-only root file system
	deploy/image-check

# Dask, an S3 server and the runner on this machine; PROFILES="monitoring dagster" for more.
up: ## all of it on this machine, with docker compose; PROFILES="monitoring dagster"
	@deploy/env
	docker compose $(addprefix --profile ,$(PROFILES)) up --build --detach --wait

down: ## stop what `make up` started; the data stays
	docker compose --profile '*' down

terraform-check: ## format, validate and test terraform/, as far as the providers can be had
	terraform/check

clean: ## remove what was built, and the environment
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo-store demo-dagster docs/_build
	find geofield orchestrate tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
