# One-word tasks. `make demo` and `make test` set everything up by themselves from Python 3.11+, make and git.
# Extra arguments: make test ARGS="-k rotation", make demo ARGS=--help. Another Python: make test PYTHON=python3.12.

PYTHON ?= python3
ARGS   ?=
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
BESIDE := .venv-integrations
BESIDE_STAMP := $(BESIDE)/.installed
FRAMEWORKS := langchain,llamaindex,haystack,mcp,vicinity,django,chroma,qdrant,lancedb,examples,suites
EXTRAS := cli,bench,postgres,embedded,leakage,age,aws,azure,gcp,keyring,pkcs11,vault,otel,docs,dev

# The lock file is made for this platform; elsewhere the ranges in pyproject.toml decide.
LOCKED_FOR := Linux x86_64
ifeq ($(shell uname -sm),$(LOCKED_FOR))
INSTALL = $(PY) -m pip install --quiet --no-deps --require-hashes -r requirements.lock \
	&& $(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
INSTALL_BESIDE = $(PY) -m pip --python $(BESIDE)/bin/python install --quiet --no-deps --require-hashes -r requirements-integrations.lock
else
INSTALL = $(PY) -m pip install --quiet -e '.[$(EXTRAS)]'
INSTALL_BESIDE = $(PY) -m pip --python $(BESIDE)/bin/python install --quiet -e '.[$(FRAMEWORKS)]'
endif

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Where it is set, each of the hundreds of processes that tests start would compile the package anew: .5 s or more.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-integrations integrations test-pg15 docs docker-up docker-down bench peers faces lint format revision coverage hooks lock clean

help:  ## list the tasks
	@grep -hE '^[a-z0-9-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 20

demo: $(STAMP)  ## the tour, on the data in the repository
	@$(PY) -m benchmarks.demo $(ARGS)

test: lint  ## lint, then every test, a process a core (ARGS="-n 0": one)
	$(PY) -m pytest -n auto --dist worksteal $(ARGS)
	@$(if $(ARGS),true,$(MAKE) --no-print-directory test-integrations ARGS="-n auto --dist loadfile")

integrations:  ## install frameworks and other databases in .venv-integrations, on top of .venv
	@$(MAKE) --no-print-directory $(BESIDE_STAMP)

# Where they cannot be installed, a message is all, but not in CI: there, what is not tested is not known.
test-integrations: $(STAMP)  ## the adapters, by the frameworks' own test suites, in .venv-integrations
	@if $(MAKE) --no-print-directory $(BESIDE_STAMP); then \
		$(BESIDE)/bin/python -m pytest -c tests/integrations/frameworks/pytest.ini --rootdir . --confcutdir . \
			tests/integrations/frameworks $(ARGS); \
	else \
		echo "NOT TESTED: the adapters of frameworks. $(BESIDE) could not be made: see above; then run make test-integrations" >&2; \
		test -z "$$CI"; \
	fi

docs: $(STAMP)  ## the site, in build/site; warnings are errors, and nothing is fetched
	@$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . build/site
	@echo "build/site/index.html"

test-pg15: $(STAMP)  ## the PostgreSQL tests on Debian 12's PostgreSQL 15 and pgvector 0.8.0
	@PYTHON=$(PY) tests/debian_pg15.sh $(ARGS)

docker-up:  ## PostgreSQL and encvec in containers: docker/README.md
	@docker/up.sh

docker-down:  ## stop them; data and secrets stay
	docker compose --file docker/compose.yaml --profile tools down

bench: $(STAMP)  ## the measurements
	@$(PY) -m benchmarks.run $(ARGS)

peers: $(STAMP)  ## install other projects to compare with, each in an environment of its own
	@$(PY) -m benchmarks.peers $(ARGS)

faces: $(STAMP)  ## faces rebuilt from stolen embeddings; sets up an environment with torch: benchmarks/faces
	@$(PY) -m benchmarks.faces $(ARGS)

lint: $(STAMP)  ## style, types, the import rules, shell scripts and the Dockerfile
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/shellcheck .ci/run docker/up.sh tests/*.sh
	$(VENV)/bin/hadolint docker/Dockerfile

format: $(STAMP)  ## put the code in shape
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

revision: $(STAMP)  ## a new script in migrations/versions: make revision ARGS="add notes"
	@$(VENV)/bin/alembic revision --rev-id $$(printf %04d $$(($$(ls migrations/versions | grep -c '^[0-9]') + 1))) -m "$(ARGS)"

coverage: $(STAMP)  ## the tests, with the lines they miss
	$(PY) -m pytest --cov --cov-report=term-missing $(ARGS)

hooks: $(STAMP)  ## run the linters before each commit
	$(VENV)/bin/pre-commit install

clean:  ## remove what the tasks made
	rm -rf $(VENV) $(VENV)-lock $(BESIDE) benchmarks/.venv-peers benchmarks/.venv-faces build dist .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find encvec_store tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ------------------------------------------------------------------------------------------- set-up

# Debian's python3 without python3-venv has venv but no pip to put in it; then the system's pip, or virtualenv, helps.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "encvec_store needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; again when pyproject.toml or requirements.lock changes) ..."
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) \
			&& $(PYTHON) -m pip --python $(PY) install --quiet pip; } >/dev/null 2>&1 \
		|| { rm -rf $(VENV); $(PYTHON) -m virtualenv --quiet $(VENV); } >/dev/null 2>&1 \
		|| { rm -rf $(VENV); \
			echo "'$(PYTHON)' can make no virtual environment: it has neither ensurepip, pip nor virtualenv." >&2; \
			echo "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(INSTALL)
	@touch $@

# It sees the packages of the other, and has only what that one lacks.
$(BESIDE_STAMP): requirements-integrations.lock $(STAMP)
	@echo "Setting up $(BESIDE) ..."
	@rm -rf $(BESIDE)
	@$(PY) -m venv --without-pip $(BESIDE)
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(BESIDE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	@$(INSTALL_BESIDE)
	@touch $@

# In an environment of its own, so that the locked tools don't decide what gets locked.
define LOCK_HEADER
# Everything that `make` installs, with hashes: the package's dependencies and the extras $(EXTRAS).
# Made by `make lock` with Python 3.11 for Linux on x86-64, and meant for that platform only.
# Elsewhere: pip install -e '.[$(EXTRAS)]'
endef
export LOCK_HEADER
define LOCK_BESIDE_HEADER
# What `make integrations` installs beside requirements.lock, with hashes: the extras $(FRAMEWORKS),
# but for what .ci/lock_beside.py leaves out.
# Made by `make lock` with Python 3.11 for Linux on x86-64, and meant for that platform only.
# Elsewhere: pip install -e '.[$(FRAMEWORKS)]'
endef
export LOCK_BESIDE_HEADER
COMPILE = $(VENV)-lock/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

lock:  ## pin all dependencies anew
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		&& test "$$(uname -sm)" = "$(LOCKED_FOR)" \
		|| { echo "make the lock file with Python 3.11 on $(LOCKED_FOR)" >&2; exit 1; }
	test -x $(VENV)-lock/bin/pip-compile || { $(PYTHON) -m venv --clear $(VENV)-lock \
		&& $(VENV)-lock/bin/python -m pip install --quiet 'pip-tools>=7.5,<8'; }
	$(COMPILE) --upgrade --extra $(EXTRAS) --output-file $(VENV)-lock/compiled.txt pyproject.toml
	cp $(VENV)-lock/compiled.txt $(VENV)-lock/all.txt  # its pins are kept
	$(COMPILE) --extra $(EXTRAS),$(FRAMEWORKS) --output-file $(VENV)-lock/all.txt pyproject.toml
	@$(VENV)-lock/bin/python .ci/lock_beside.py $(VENV)-lock/all.txt $(VENV)-lock/compiled.txt > $(VENV)-lock/beside.txt
	@if grep -nE '://|^-|# *via +(-[rc] )?/' $(VENV)-lock/all.txt; then \
		echo "the lock file would name an address or a path of this machine" >&2; exit 1; fi
	@{ echo "$$LOCK_HEADER"; cat $(VENV)-lock/compiled.txt; } > requirements.lock
	@{ echo "$$LOCK_BESIDE_HEADER"; cat $(VENV)-lock/beside.txt; } > requirements-integrations.lock
