# make run       the example chat on http://127.0.0.1:8000 (HOST=, PORT=). With several workers it
#                needs a Redis: make run WORKERS=4 CHANNELS=redis://localhost:6379/0
# make check     lint, types and the tests that start no server: in less than a minute, for
#                every change (its tests alone: make quick)
# make test      lint, types and all tests, in a virtual environment of its own
# make test-all  the tests on every Python found, with the oldest and newest servers (some of
#                them only: MATRIX="3.9-oldest 3.13")
# make soak      channels, then plain connections, under faults, checked message by message
#                (SOAK=3600: seconds); build/soak has a picture of the second half
# make fuzz      inputs that a fuzzer finds, for all parsers: see tests/fuzz (FUZZ=60:
#                seconds for each)
# make clean     removes what the others made

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
CHANNELS ?= memory://
SOAK ?= 3600
FUZZ ?= 60
PYTEST_ARGS ?= -n 2 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(wildcard faye_wsgi/*/*.c faye_wsgi/*/*.pxd) \
	$(patsubst %.pxd,%.py,$(wildcard faye_wsgi/*/*.pxd))
BUILD_INPUTS := setup.cfg setup.py pyproject.toml
CHECKED := $(wildcard .ci faye_wsgi tests examples benchmarks setup.py)

# Browsers, other implementations, compilers and load: never in a minute. What else starts a
# server skips itself with --no-servers, so that a new test file has no list to be put on.
SLOW := tests/browser tests/interop tests/stress tests/test_native.py

.PHONY: run build check quick test lint types pytest system test-all soak fuzz clean

run: $(VENV)/.run-stamp
	CHANNELS='$(CHANNELS)' $(BIN)/gunicorn --worker-class gevent --workers $(WORKERS) \
		--bind $(HOST):$(PORT) \
		--chdir examples/flask_app app:app

# Every check runs, whatever the others say; pytest's summary comes last.
test: system $(VENV)/.build-stamp
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(MAKE) --no-print-directory types || status=1; \
	$(MAKE) --no-print-directory pytest || status=1; \
	exit $$status

check:
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(MAKE) --no-print-directory types || status=1; \
	$(MAKE) --no-print-directory quick || status=1; \
	exit $$status

lint: $(VENV)/.test-stamp
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

types: $(VENV)/.test-stamp
	$(BIN)/mypy

pytest: build
	$(BIN)/python -m pytest $(PYTEST_ARGS)

quick: build
	$(BIN)/python -m pytest -q -rfE --no-servers $(PYTEST_ARGS) $(SLOW:%=--ignore=%) tests examples

build: $(VENV)/.build-stamp

system:
	@PYTHON=$(PYTHON) bash tests/support/system_packages.sh

test-all:
	$(PYTHON) -m tests.support.matrix $(PYTEST_ARGS)

soak: system build
	$(BIN)/python -m tests.soak --seconds $$(($(SOAK) / 2))
	$(BIN)/python -m tests.soak.traffic --seconds $$(($(SOAK) / 2))

fuzz: build
	-$(BIN)/python -m pip install --quiet -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ) --sanitized hybi deflate drafts eventstream

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find faye_wsgi tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + \
		2>/dev/null || true
	rm -f faye_wsgi/*/*.so

$(VENV)/bin/python:
	@PYTHON=$(PYTHON) bash tests/support/system_packages.sh venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools

$(VENV)/.run-stamp: $(BUILD_INPUTS) $(COMPILED) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[flask,redis]' 'gunicorn[gevent]'
	@touch $@

$(VENV)/.test-stamp: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

# A change of a source that is compiled: a build of seconds, without the rest.
$(VENV)/.build-stamp: $(COMPILED) $(VENV)/.test-stamp
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
