# make demo · test · test-browser · test-slow · test-gpu · lint · bench · bench-memory · toyland · examples · lock · clean
# A fresh clone, make, and Python 3.11 or newer are all that is needed: each target sets up .venv first.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 7860
# Processes that run tests, a file at a time; each fills about 1 GB. With 0 the tests run in pytest's own.
WORKERS ?= 2
AT_ONCE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# How Toyland is trained: cpu; or, with ARGS="--device cuda --out DIR", quick-gpu (minutes) or gpu (hours).
PRESET ?= cpu

UV := $(shell command -v uv 2>/dev/null)
VENV := .venv
RUN := $(VENV)/bin/python
# The stamps say that .venv holds what the requirements files ask for; a changed file installs again.
APP_READY := $(VENV)/.app-ready
DEV_READY := $(VENV)/.dev-ready

ifdef UV
CREATE := uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV)
CAN_INSTALL := $(RUN) --version
# As pip does: without bytecode, each start would compile what it imports anew where Python may not write it.
INSTALL := uv pip install --compile-bytecode --python $(RUN) --constraint requirements.lock
else
CREATE := "$(PYTHON)" -m venv $(VENV)
CAN_INSTALL := $(RUN) -m pip --version || $(RUN) -m ensurepip
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser test-slow test-gpu lint bench bench-memory toyland examples lock clean

help:
	@echo "make demo        set up everything and serve the app on http://$(HOST):$(PORT)"
	@echo "make test        all tests but the slow ones, those in a browser and those that need a GPU"
	@echo "make test-browser   those of the page in Chromium"
	@echo "make test-slow   the slow ones        make test-gpu   those that need a CUDA device"
	@echo "make lint        ruff, pyright, hadolint, shellcheck"
	@echo "make bench       measure the speed of sampling (ARGS=\"--device cuda\")"
	@echo "make bench-memory   measure what runs fill, by task, frames, and frames at a time"
	@echo "make toyland     train the embedded model anew on this CPU (hours)"
	@echo "make examples    render the example clips, what the page shows first, and the pictures of its About"
	@echo "make lock        pin anew what the requirements bring along (wants uv; ARGS=--upgrade takes the newest)"
	@echo "make clean       remove .venv and caches"

$(RUN):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 || true):" \
	         "install one and name it, for example  make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(CREATE) || true

# Debian's Python without python3-venv makes half an environment: it goes, or every later make took it as ready.
$(APP_READY): requirements.txt requirements.lock | $(RUN)
	@{ $(CAN_INSTALL); } >/dev/null 2>&1 || { \
	    test -e $@ || ! test -e $(VENV)/pyvenv.cfg || rm -rf $(VENV); \
	    echo "pip does not work in $(VENV): install Python's venv (Debian and Ubuntu: apt install python3-venv)" \
	         "or uv, then start again." >&2; exit 1; }
	@echo "Installing what the app needs into $(VENV); the first time takes a few minutes and 6 GB."
	$(INSTALL) -r requirements.txt
	@touch $@

$(DEV_READY): requirements-dev.txt $(APP_READY)
	$(INSTALL) -r requirements-dev.txt
	@touch $@

demo: $(APP_READY)
	$(RUN) app.py --host $(HOST) --port $(PORT) $(ARGS)

test: $(DEV_READY)
	$(RUN) -m pytest $(AT_ONCE) -m "not slow and not gpu and not browser" $(ARGS)

test-browser: $(DEV_READY)
	$(RUN) -m pytest $(AT_ONCE) -m "browser and not slow" $(ARGS)

test-slow: $(DEV_READY)
	$(RUN) -m pytest -m "slow and not gpu" $(ARGS)

test-gpu: $(DEV_READY)
	$(RUN) -m pytest -m gpu $(ARGS)

lint: $(DEV_READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) -m pyright  # the variable keeps it from asking for newer versions
	$(VENV)/bin/hadolint --failure-threshold style Dockerfile
	$(VENV)/bin/shellcheck .ci/run

bench: $(APP_READY)
	$(RUN) -m benchmarks.sampling $(ARGS)

bench-memory: $(APP_READY)
	$(RUN) -m benchmarks.memory $(ARGS)

toyland: $(APP_READY)
	$(RUN) -m toyland --preset $(PRESET) $(ARGS)

examples: $(APP_READY)
	$(RUN) -m toyland.world.clips --out assets/clips
	$(RUN) -m toyland.examples --out assets/clips/results --strip assets/readme/tasks.gif $(ARGS)
	$(RUN) -m toyland.about --out assets/about

# For every system and every Python that is supported, not for this machine's alone.
lock:
	uv pip compile --universal --python-version 3.11 --no-annotate --no-emit-index-url \
	    --custom-compile-command "make lock" --output-file requirements.lock $(ARGS) requirements.txt requirements-dev.txt

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
