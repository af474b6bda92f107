# make bench: the whole benchmark on the made world.  make test: all tests.  Both install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= configs/mini.py
INSTALL ?= $(BIN)/python -m pip install --quiet

.PHONY: bench test lint format install install-test clean
.DELETE_ON_ERROR:

bench: install
	$(BIN)/salmu bench --config $(CONFIG)

test: install-test
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder --durations 10

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or later is needed, this is ' + sys.version)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt requirements-test-nodeps.txt
	$(INSTALL) --requirement requirements-test.txt
	$(INSTALL) --no-deps --requirement requirements-test-nodeps.txt
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache .hypothesis
