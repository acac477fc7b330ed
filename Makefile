# Three commands matter: `make sweep`, `make pipeline` and `make test`. Each installs what it needs into .venv first, and only when
# setup.cfg or constraints.txt changed. `make help` lists all.

# The first Python that Covalent 0.240 works with; or say `make PYTHON=python3.12 ...`.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$python && break; done)
VENV ?= .venv
STATE ?= .cirro
# Of tests at the same time: two for each core, because half of a test's time is spent waiting for jobs and servers.
PROCESSES ?= $(shell python3 -c 'import os; print(2 * len(os.sched_getaffinity(0)))' 2>/dev/null || echo 4)
ARGS ?=
# Absolute, so that what is run finds its way whatever its folder is.
BIN := $(abspath $(VENV))/bin
# uv where it is there, which takes a fifth of the time; `make UV=` for pip. A terminal sees the progress, a log does not.
UV ?= $(shell command -v uv 2>/dev/null)
QUIET := $(shell test -t 2 || echo --quiet)
PIP = $(BIN)/python -m pip install $(QUIET) $(QUIET) --disable-pip-version-check
# A path in site-packages instead of setuptools' finder, which costs each start of Python 14 ms: twice what it takes without.
EDITABLE = --config-settings editable_mode=compat -e
INSTALL = $(if $(UV),$(UV) pip install $(QUIET) --python $(BIN)/python,$(PIP)) -c constraints.txt

# Hundreds of processes import this package while the tests run: without its bytecode, each would compile it anew.
PYTEST = PATH="$(abspath $(VENV))/tools:$$PATH" PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
	--numprocesses $(PROCESSES) --no-loadscope-reorder

.DEFAULT_GOAL := help
.NOTPARALLEL:
# Folders of tests/, each of which can be run alone: `make test-unit`.
PARTS = unit runner service emulator security plugin cli covalent faults images benchmarks aws
.PHONY: help sweep pipeline search distributed serve down status test $(PARTS:%=test-%) check docs bench bench-peers bench-serving faults install clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-13s %s\n", $$1, $$2 }'
	@printf 'make test-X     Run one part of the tests, X is one of: $(PARTS)\n'

sweep: $(VENV)/.run ## Train a sweep as AWS Batch jobs on an emulated AWS, from nothing; ARGS="--output DIR" goes to it
	@$(BIN)/cirro local up --server --state-dir $(STATE)
	@$(BIN)/cirro local exec --state-dir $(STATE) -- python examples/sweep.py $(ARGS)
	@echo
	@echo "Still running, so that you can look around in the UI; \`make down\` stops all of it and removes its data:"
	@$(BIN)/cirro local status --state-dir $(STATE)

pipeline: $(VENV)/.run ## Run tomography in four steps on an emulated AWS, from nothing; ARGS="--slices 8" goes to the lattice
	@$(BIN)/cirro local up --server --state-dir $(STATE)
	@$(BIN)/cirro local exec --state-dir $(STATE) -- cirro run examples/pipeline.py:tomography --gpus 1 $(ARGS)
	@echo
	@$(BIN)/cirro local exec --state-dir $(STATE) -- python examples/pipeline.py
	@echo
	@echo "Still running, so that you can look around in the UI; \`make down\` stops all of it and removes its data:"
	@$(BIN)/cirro local status --state-dir $(STATE)

search: $(VENV)/.search ## Search instead of a grid, on an emulated AWS, from nothing; ARGS="--trials 20" goes to it
	@$(BIN)/cirro local up --server --state-dir $(STATE)
	@$(BIN)/cirro local exec --state-dir $(STATE) -- python examples/search.py $(ARGS)
	@echo
	@echo "Still running, so that you can look around in the UI; \`make down\` stops all of it and removes its data:"
	@$(BIN)/cirro local status --state-dir $(STATE)

distributed: $(VENV)/.run ## Train on two machines of two processes each, on an emulated AWS, from nothing; ARGS="--epochs 6" goes to it
	@$(BIN)/cirro local up --server --state-dir $(STATE)
	@$(BIN)/cirro local exec --state-dir $(STATE) -- python examples/data_parallel.py $(ARGS)
	@echo
	@echo "Still running, so that you can look around in the UI; \`make down\` stops all of it and removes its data:"
	@$(BIN)/cirro local status --state-dir $(STATE)

# The service's tasks are processes here: its packages are in the folder that stands for the image.
serve: $(VENV)/.run ## Train a recommender, register it, serve it and ask it, on an emulated AWS, from nothing; ARGS="--data ml-1m"
	@$(BIN)/cirro local up --server --image recommender=examples/recommender/service --state-dir $(STATE)
	@$(BIN)/cirro local exec --state-dir $(STATE) -- python examples/recommender/sweep.py $(ARGS)
	@echo
	@$(BIN)/cirro local exec --state-dir $(STATE) -- cirro serve deploy --model recommender --allow-from 127.0.0.0/8 --yes
	@echo
	@$(BIN)/cirro local exec --state-dir $(STATE) -- python examples/recommender/ask.py
	@echo
	@echo "Still running, so that you can ask it yourself; \`make down\` stops all of it and removes its data:"
	@$(BIN)/cirro local exec --state-dir $(STATE) -- cirro serve status
	@$(BIN)/cirro local status --state-dir $(STATE)

status: $(VENV)/.run ## Show what still runs
	@$(BIN)/cirro local status --state-dir $(STATE)

down: ## Stop what `make sweep`, `pipeline`, `search`, `distributed` or `serve` left running, and remove its data
	@if [ -x $(BIN)/cirro ]; then $(BIN)/cirro local down --state-dir $(STATE); else echo "nothing is installed"; fi

test: $(VENV)/.dev $(VENV)/.tools ## Run all tests; ARGS="-k name" goes to pytest
	@$(PYTEST) $(ARGS)

$(PARTS:%=test-%): test-%: $(VENV)/.dev
	@$(PYTEST) tests/$* $(ARGS)

# Tests of these parts run the command lines of checkov and AWS, and skip without them.
test-unit test-cli test-emulator: $(VENV)/.tools

check: $(VENV)/.dev ## Format, lint, types, layers and the site of the documentation
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_layers.py
	@$(MAKE) --no-print-directory docs

# From nothing each time: Sphinx tells a page's warnings only when it reads that page.
docs: $(VENV)/.dev ## Build the site of the documentation into build/site; a warning or a dead link is an error
	@$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs --doctree-dir build/doctrees . build/site

bench: $(VENV)/.dev ## Run the stock plugin and this one side by side; writes benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/run.py $(ARGS)

bench-peers: $(VENV)/.dev ## Run other tools for AWS Batch and this one side by side; writes benchmarks/PEERS.md
	@PYTHONPATH=benchmarks $(BIN)/python -m peers $(ARGS)

bench-serving: $(VENV)/.dev ## Run a tutorial's Flask app and the recommender's service side by side; writes benchmarks/SERVING.md
	@$(BIN)/python benchmarks/serving.py $(ARGS)

faults: $(VENV)/.dev ## Try every fault on whole lattices; writes docs/faults.md
	@$(BIN)/python -m tests.faults $(ARGS)

install: $(VENV)/.run ## Only install, without what tests and checks need

clean: down ## Stop all and remove the virtual environment
	rm -rf $(VENV)

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ]; then echo "There is no Python 3.10, 3.11 or 3.12 here. Say make PYTHON=... with one." >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "$(PYTHON) is not Python 3.10, 3.11 or 3.12, which Covalent 0.240 needs." >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# constraints.txt pins torch to a release, so that pip prefers a CPU build of it (2.13.0+cpu) wherever its own settings
# (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip.conf) offer one: the CUDA build is several GB.
$(VENV)/.run: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (a few minutes the first time)"
	@$(INSTALL) $(EDITABLE) '.[emulator,examples,models,serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what tests and checks need"
	@$(INSTALL) $(EDITABLE) '.[emulator,examples,models,search,serve,test,check,docs]'
	@touch $@

$(VENV)/.search: $(VENV)/.run
	@echo "installing what a search needs"
	@$(INSTALL) $(EDITABLE) '.[emulator,examples,models,search,serve]'
	@touch $@

# Command lines that tests run. Each is in an environment of its own: each wants another botocore than the rest.
CHECKOV_VERSION = 3.3.30
AWSCLI_VERSION = 1.46.3
$(VENV)/.tools: Makefile | $(VENV)/bin/python
	@echo "installing checkov, which looks through the templates, and the AWS CLI, which the documentation uses"
	@mkdir -p $(VENV)/tools
	@install() { \
		home=$(VENV)/tools/$${1%%==*}-environment && $(BIN)/python -m venv --without-pip $$home \
		&& $(BIN)/python -m pip --python $$home/bin/python install --no-compile --quiet --quiet --disable-pip-version-check $$1; }; \
		install checkov==$(CHECKOV_VERSION) & checkov=$$!; install awscli==$(AWSCLI_VERSION) & wait $$! && wait $$checkov
	@ln -sf checkov-environment/bin/checkov $(VENV)/tools/checkov
	@ln -sf awscli-environment/bin/aws $(VENV)/tools/aws
	@touch $@
