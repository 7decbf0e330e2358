# A clone needs python3 (3.11 or newer) and make. `make help` lists the targets; PYTEST=... is passed on to pytest.
# `make test` shares the files of the tests among PROCESSES; PROCESSES=0 runs them in one, for a debugger.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 8000
PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help up cluster test lint quick locked lock proto matrix docs docs-site screenshots bench trace mutation chaos interrupts faults fmt clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

up: $(VENV)/.demo ## run the demo on http://127.0.0.1:8000 (PORT=...); Ctrl-C ends it
	@exec $(BIN)/snakepit up --demo --port $(PORT)

cluster: $(VENV)/.test ## run three hosts on this machine, in namespaces: Linux, root; Ctrl-C ends them (CLUSTER=faults: check what holds)
	@exec $(BIN)/python -m benchmarks.cluster $(or $(CLUSTER),demo)

test: $(VENV)/.test lint ## run all checks and all tests (CI=true: a skipped test fails)
	SNAKEPIT_DEMO=0 $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=loadfile --no-loadscope-reorder $(PYTEST)

lint: $(VENV)/.test ## check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

quick: $(VENV)/.test ## run unit tests and doctests: no process, no socket, under half a minute
	$(BIN)/python -m pytest $(PYTEST) tests/unit snakepit

locked: ## install what uv.lock has into .venv, instead of the newest libraries (needs uv)
	uv venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
	uv sync --locked --inexact --extra test
	@touch $(VENV)/.test $(VENV)/.demo

lock: ## write uv.lock again: after a change of the dependencies, or with LOCK=--upgrade for the newest (needs uv)
	uv lock --default-index https://pypi.org/simple $(LOCK)

matrix: ## run the tests on the lowest and newest dependencies, on each Python found (MATRIX=--quick: the two ends; --list)
	@$(PYTHON) tests/matrix.py $(MATRIX)

proto: $(VENV)/.test ## generate the wire stubs from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto \
	  --plugin=protoc-gen-grpclib_python=$(BIN)/protoc-gen-grpclib_python \
	  --python_out=. --pyi_out=. --grpclib_python_out=. \
	  proto/snakepit/workers/wire/worker.proto proto/snakepit/pools/wire/broker.proto
	$(BIN)/python -m grpc_tools.protoc -I proto --grpc_python_out=. proto/snakepit/pools/wire/broker.proto

docs: $(VENV)/.test ## write the generated pages of docs/
	$(BIN)/python docs/generate.py

docs-site: $(VENV)/.test ## build the documentation site in build/site (a warning is an error)
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --fresh-env --conf-dir docs --doctree-dir build/doctrees . build/site
	@echo "build/site/index.html"

screenshots: $(VENV)/.test ## take the pictures of docs/images/ with Chromium, from a demo under load
	$(BIN)/python docs/screenshots.py

bench: $(VENV)/.bench ## compare with other libraries in one run (ROWS=name,name for some); installs them first
	$(BIN)/python -m benchmarks

trace: $(VENV)/.test ## print which files of the project a call, a sweep and a job pass, in each process; fails above the bound
	$(BIN)/python -m benchmarks.trace

mutation: $(VENV)/.mutation ## mutate the broker core and list the mutants that the unit tests miss
	$(BIN)/mutmut run
	$(BIN)/mutmut results

chaos: $(VENV)/.test ## run the fault test of jobs ten times: 300 jobs while each process is killed in turn
	@for round in 1 2 3 4 5 6 7 8 9 10; do \
	  $(BIN)/python -m pytest -q -rP $(PYTEST) tests/process/acceptance/test_jobs_chaos.py || exit 1; done

interrupts: $(VENV)/.test ## interrupt the client at each instruction of a call, a stream, a question and a connect: minutes
	STEP=1 $(BIN)/python -m pytest -q $(PYTEST) tests/process/contract/test_client_interrupts.py

faults: $(VENV)/.faults ## make faults on purpose and check what is promised: about an hour (FAULTS="name name", SECONDS=20)
	$(BIN)/python -m benchmarks.faults $(FAULTS) $(if $(SECONDS),--seconds $(SECONDS))

fmt: $(VENV)/.test ## format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove the environments, the caches and the demo's state
	rm -rf $(VENV) .venv-* .snakepit .mypy_cache .ruff_cache mutants .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: pip runs only when pyproject.toml is newer than the last installation.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say make PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,embedded,serve,uvloop]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@ $(VENV)/.demo

$(VENV)/.mutation: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8'
	@touch $@

$(VENV)/.faults: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.demo
