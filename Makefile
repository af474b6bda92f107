# make bench: the whole benchmark on the made world.  make test: the tests.  Both install what they need into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= configs/mini.py
UV_VERSION := 0.13.9
PYTEST := $(BIN)/python -m pytest --numprocesses 2

# uv installs in seconds what pip takes minutes for; pip is the fallback. Both install exactly what the lock file names.
install = if [ -x $(BIN)/uv ] && $(BIN)/uv pip install --quiet --python $(BIN)/python $(1); then :; \
	else $(BIN)/python -m pip install --quiet $(1); fi
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Without compiled modules each process compiles all of JAX again, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench test test-slow test-optimised coverage lint types format lock install install-test clean
.DELETE_ON_ERROR:

bench: install
	$(BIN)/salmu bench --config $(CONFIG)

test: install-test
	$(PYTEST) $(if $(MARKED),-m "$(MARKED)") $(if $(COVERAGE),--cov --cov-report term:skip-covered) --durations 40

# How much of the code the tests run, except in child processes. Before Python 3.12 it takes half as long again.
coverage:
	$(MAKE) test COVERAGE=yes

# The long tests, which `make test` leaves out, except those that `make test-optimised` runs.
test-slow: install-test
	$(PYTEST) -m "slow and not optimised" --durations 40

# Tests that `make test` compiles without optimisation are compiled here as users' programs are.
test-optimised: install-test
	XLA_FLAGS=--xla_force_host_platform_device_count=8 $(PYTEST) -m optimised --durations 40

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-test
	$(BIN)/python -m mypy

format: install-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Takes the newest versions within the bounds of requirements*.txt.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-annotate --custom-compile-command "make lock"
lock: export UV_FIND_LINKS =
lock: install
	printf "%s; sys_platform == 'never'\n" torch torchvision > $(VENV)/overrides.txt
	$(COMPILE) requirements.txt --output-file requirements.lock
	$(COMPILE) requirements.txt requirements-test.txt --constraint requirements.lock --overrides $(VENV)/overrides.txt \
		--no-emit-package torch --no-emit-package torchvision --output-file requirements-test.lock

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or later is needed, this is ' + sys.version)"
	@echo 'Installing what requirements.lock names into $(VENV)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv==$(UV_VERSION) || echo 'uv is not available: pip installs, which takes minutes'
	@$(call install,--no-deps --requirement requirements.lock)
	@$(call install,--no-deps --editable .)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.lock requirements-torch.txt
	@$(call install,--no-deps --requirement requirements-test.lock)
	@$(call install,--requirement requirements-torch.txt)
	@touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
