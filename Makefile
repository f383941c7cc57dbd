# What can be done with a checkout. Everything runs in .venv, which is made when it is not there; PYTHON names another
# interpreter to make it with (3.11 or newer).

VENV := .venv
BIN := $(VENV)/bin
# Options of pytest, such as PYTEST='-n 0 -x'. Two processes, each with servers of its own.
PYTEST := -n 2 --dist loadfile
# The stamps say for which pyproject.toml, and at which path, the packages were installed.
STAMP := $(VENV)/.installed-$(shell pwd | cksum | cut -d' ' -f1)

.PHONY: help demo test lint bench clean

help:
	@echo "make demo   the whole story on this machine: back up a busy database, destroy it, restore it, verify it"
	@echo "make test   all tests, with real servers on free ports"
	@echo "make lint   ruff and mypy"
	@echo "make bench  the table of docs/performance.md, beside restic and borg; about 15 minutes"
	@echo "make clean  remove $(VENV) and caches"

demo: $(STAMP)
	$(BIN)/flybackup demo

test: $(STAMP)-dev
	@.ci/postgresql
	$(BIN)/pytest $(PYTEST)

lint: $(STAMP)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)-dev
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml .ci/install
	@.ci/install $(VENV) .
	@touch $@

$(STAMP)-dev: pyproject.toml .ci/install
	@.ci/install $(VENV) '.[dev]'
	@touch $(STAMP) $@
