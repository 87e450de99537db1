# Every target is one command on a fresh machine: python3 and make are all it takes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup run demo test check lint lock bench clean

setup: $(VENV)/ready

# The lock file holds names, versions and hashes; pip's own configuration says where from.
$(VENV)/ready: locks/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,14))' || \
	  { echo "Riacho needs Python 3.11 to 3.14 with venv (Debian: apt-get install python3-venv); try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r locks/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	$(BIN)/riacho up

demo: setup
	$(BIN)/riacho demo

# Whole files at a time, which share a server, or a model. Three, also on two cores: most of them wait more than they
# work. In the order of the rooms: the long ones are in acceptance and faults, and would else be what is waited for at
# the end.
test: setup
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

check: lint test

bench: setup
	$(BIN)/python -m benchmarks run engine retry-storm fanout big-backlog idle cold-start chat capacity-check http \
	  tracing transcribe --quick
	$(BIN)/python -m benchmarks report

# After changing dependencies in pyproject.toml. The Docker image is built from build.txt and runtime.txt.
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header --no-annotate

lock: setup
	$(COMPILE) --upgrade pyproject.toml --extra weights --extra dev -o locks/dev.txt
	$(COMPILE) --constraint locks/dev.txt pyproject.toml -o locks/runtime.txt
	echo setuptools | $(COMPILE) --constraint locks/dev.txt - -o locks/build.txt
	for peer in benchmarks/peers/*.in; do $(COMPILE) --upgrade $$peer -o $${peer%.in}.txt || exit; done
	for peer in bull bullmq fastify; do (cd benchmarks/peers/$$peer && \
	  npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts) || exit; done

clean:
	rm -rf $(VENV) .riacho build *.egg-info
