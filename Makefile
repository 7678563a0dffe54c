# One environment, made by pip from requirements.lock; every target makes it first where it is missing or out of date.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
# The interpreter to make the environment with: PYTHON=... make test overrides the search.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 \
	"$$HOME"/.pyenv/versions/3.1[1-9]*/bin/python3; do \
	"$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$name" && break; done)

.DELETE_ON_ERROR:
.PHONY: install demo test check clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv found; install one or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --requirement requirements.lock
	$(VENV)/bin/python -m pip install --no-deps --editable .
	touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/worldmodel demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/pyright

clean:
	rm -rf $(VENV)
