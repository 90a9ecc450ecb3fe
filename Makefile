# Each target makes its own virtual environment in .venv; nothing has to be prepared but Python 3.11 or newer.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
SEEDS  ?= 300

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint docs fuzz swarm chaos bench soak mutants man clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(STAMP)  ## make the virtual environment in .venv

# Made anew from scratch when the dependencies change; `installed` is there only if everything went well.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "migemu needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (a minute or so, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## migrate 1 GiB between two processes over an emulated link, and watch
	@$(BIN)/migemu demo

test: $(STAMP) lint  ## run the whole test suite, linters included
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'not alone'
	$(BIN)/python -m pytest -m alone

lint: $(STAMP)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A minute, half of it led by coverage; FRAMES=10000000 goes on until so many were judged, however long it takes.
fuzz: SECONDS ?= $(if $(FRAMES),0,60)
fuzz: $(STAMP)  ## send the decoder and the state tables a minute of lies; or make fuzz FRAMES=10000000 [SEED=2]
	$(BIN)/python -m tests.fuzz --frames $(or $(FRAMES),0) --seconds $(SECONDS) --seed $(or $(SEED),1)

swarm: $(STAMP)  ## migrate in virtual time while things go wrong, a world a seed; or make swarm SEEDS=5000 FROM=300
	$(BIN)/python -m tests.swarm $(SEEDS) --first $(or $(FROM),0)

chaos: $(STAMP)  ## real processes that are killed, stopped, cut off and started again; or make chaos ROUNDS=300 [FROM=1 | SEED=7]
	$(BIN)/python -m tests.chaos $(or $(ROUNDS),60) --first $(or $(FROM),1) $(if $(SEED),--seed $(SEED))

docs: $(STAMP)  ## the documentation as a site, in build/docs: links checked, the API from its docstrings
	$(BIN)/python -m migemu.docs.generated
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open build/docs/index.html; to search in it, serve it: $(BIN)/python -m http.server -d build/docs"

bench: $(STAMP)  ## measure against a bare pair of processes; also written to bench.json
	$(BIN)/python -m tests.bench

soak: $(STAMP)  ## migrate for half an hour while connections are cut: memory has to stay flat; or make soak MINUTES=5
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

# Neither in `make test` nor in CI: it takes hours. The tree is not changed; all happens in a copy below runs/.
man: $(STAMP)  ## write the man pages of migemu, migemu-source and migemu-dest into man/
	@$(BIN)/python -m migemu.cli.manual man

mutants: $(STAMP)  ## change the core a line at a time: do tests notice? or make mutants FOLDER=migemu/wire [SAMPLE=200]
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[mutants]'
	$(BIN)/python -m tests.mutants $(FOLDER) --sample $(or $(SAMPLE),0) --seed $(or $(SEED),1) --workers $(or $(WORKERS),1)

clean:  ## remove the environment and what tools have left
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
