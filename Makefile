# Every target makes the environment that it needs. `make` alone lists the targets.
# Variables: PYTHON (the Python that environments are made with), ARGS (further arguments of the command that a target runs),
# and those that the list of targets names.

PYTHON ?= python3
ARGS :=
SEEDS := 10000
FIRST := 0
MINUTES := 30
EXAMPLES := 5000
IMAGE := triorelay

# Each environment has what its targets need, and no more: .venv what running takes, which is made in seconds.
VENV := .venv
TEST_VENV := .venv-test
DOCS_VENV := .venv-docs
CHECK_VENV := .venv-check
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
TEST_BIN := $(TEST_VENV)/bin
DOCS_BIN := $(DOCS_VENV)/bin
CHECK_BIN := $(CHECK_VENV)/bin
BENCH_BIN := $(BENCH_VENV)/bin
# A stamp is younger than all that its environment was made from, and belongs to one Python.
STAMP := .made-with-$(notdir $(PYTHON))
READY := $(VENV)/$(STAMP)
TEST_READY := $(TEST_VENV)/$(STAMP)
DOCS_READY := $(DOCS_VENV)/$(STAMP)
CHECK_READY := $(CHECK_VENV)/$(STAMP)
BENCH_READY := $(BENCH_VENV)/$(STAMP)
# Several tests at a time, one after the other as workers become free; tests/conftest.py says how many, and which begin.
# Each worker, and each Python that a test starts, would compile all modules anew if it found no bytecode.
PYTEST := PYTHONDONTWRITEBYTECODE= $(TEST_BIN)/python -m pytest --numprocesses=auto --dist=load --maxschedchunk=1
# What was compiled from an earlier state of its source would hide the source.
CURRENT = hatch_build.py --remove-outdated
CHECKED := triorelay tests $(wildcard benchmarks)

# `make run` has a dashboard at this port, if no other program has it.
DASHBOARD = $$($(BIN)/python -c 'import socket; socket.create_server(("127.0.0.1", 9736)); print("--admin 9736")' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run demo test coverage simulate soak fuzz docker-test check docs pictures bench bench-clients work compiled pure build lock clean distclean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

run: $(READY) ## Run the relay on ./server_socket and TCP port 9734
	@$(BIN)/python $(CURRENT)
	$(BIN)/triorelay serve --unix server_socket --tcp 9734 $(DASHBOARD) $(ARGS)

demo: $(READY) ## Watch a relay and a dozen clients at work
	@$(BIN)/python $(CURRENT)
	$(BIN)/python docs/examples/demo.py $(ARGS)

test: $(TEST_READY) ## Run the tests; a part of them: make test ARGS=tests/protocol
	@$(TEST_BIN)/python $(CURRENT)
	$(PYTEST) $(ARGS)

coverage: $(TEST_READY) ## Run the tests and list the lines that none of them reaches
	@$(TEST_BIN)/python $(CURRENT)
	$(PYTEST) --cov --cov-report=term $(ARGS)

simulate: $(TEST_READY) ## Simulate the relay among random clients: make simulate SEEDS=100000 FIRST=0
	@$(TEST_BIN)/python $(CURRENT)
	SEEDS=$(SEEDS) FIRST=$(FIRST) $(PYTEST) -q --log-level=CRITICAL tests/simulation $(ARGS)

soak: $(TEST_READY) ## Let clients of all kinds come and go for long: make soak MINUTES=30 SEEDS=50
	@$(TEST_BIN)/python $(CURRENT)
	MINUTES=$(MINUTES) HANDOVERS=50 $(TEST_BIN)/python -m pytest -q tests/soak tests/chaos tests/handover/test_load.py $(ARGS)

fuzz: $(TEST_READY) ## Give the protocol, the hello and the admin endpoint more random input: make fuzz EXAMPLES=10000
	@$(TEST_BIN)/python $(CURRENT)
	EXAMPLES=$(EXAMPLES) $(PYTEST) -q tests/protocol tests/fuzz $(ARGS)

docker-test: $(TEST_READY) ## Run the tests of the containers, on the engine that answers or one of their own
	@$(TEST_BIN)/python $(CURRENT)
	TRIORELAY_DOCKER=1 docker/engine run $(TEST_BIN)/python -m pytest tests/docker $(ARGS)

check: $(CHECK_READY) ## Check style, types and documentation
	$(CHECK_BIN)/ruff check
	$(CHECK_BIN)/ruff format --check
	$(CHECK_BIN)/mypy --strict --python-executable $(CHECK_BIN)/python $(CHECKED)
	PATH="$(CURDIR)/$(CHECK_BIN):$$PATH" basedpyright --verifytypes triorelay --ignoreexternal
	$(call build_docs,$(CHECK_BIN))

docs: $(DOCS_READY) ## Build the documentation into docs/_build/html, and the man page into docs/_build/man
	$(call build_docs,$(DOCS_BIN))

define build_docs
$(1)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
$(1)/python -m sphinx --fail-on-warning --keep-going --quiet --builder man docs docs/_build/man
endef

pictures: $(TEST_READY) ## Make the pictures of README and documentation anew, in three minutes
	$(TEST_BIN)/python -m docs.pictures $(ARGS)

bench: $(BENCH_READY) ## Measure the relay beside its peers and print a table
	@$(BENCH_BIN)/python $(CURRENT)
	$(BENCH_BIN)/python -m benchmarks $(ARGS)
	$(if $(ARGS),,$(BENCH_BIN)/python -m benchmarks.handover)

bench-clients: $(BENCH_READY) ## Measure the client library beside those of other buses
	$(BENCH_BIN)/python -m benchmarks.clients $(ARGS)

work: $(TEST_READY) ## Count system and Python calls a message, and fail where there are more than before
	@$(TEST_BIN)/python $(CURRENT)
	$(TEST_BIN)/python -m benchmarks.work_per_message $(ARGS)

.PHONY: reference
reference: $(TEST_READY) ## Write the list of the public API and the test vectors of the wire anew
	$(TEST_BIN)/python -m tests.public_api
	$(TEST_BIN)/python -m tests.vectors

compiled: $(READY) $(CHECK_READY) ## Compile the hot modules for this checkout's environments (needs a C compiler)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --requirement requirements/compiled.txt
	$(CHECK_BIN)/python hatch_build.py
	$(BIN)/triorelay --version

pure: $(READY) ## Take back what `compiled` did
	$(BIN)/python hatch_build.py --remove

build: $(CHECK_READY) ## Build the source distribution, the pure wheel and this platform's, and install each as users do
	rm -rf dist build
	$(CHECK_BIN)/python -m build --no-isolation
	HATCH_BUILD_HOOKS_ENABLE=1 $(CHECK_BIN)/python -m build --no-isolation --wheel
	$(CHECK_BIN)/twine check --strict dist/*
	requirements/try $(PYTHON) dist/*-none-any.whl requirements/run.txt 'pure Python'
	requirements/sbom $(CHECK_BIN)/cyclonedx-py build/empty dist/triorelay.cdx.json
	requirements/try-installers $(CHECK_BIN) dist/*-none-any.whl
	requirements/try $(PYTHON) dist/*-cp*.whl requirements/compiled.txt compiled

.PHONY: image
image: ## Build the container image, labelled with the revision and the time: make image IMAGE=triorelay:mine
	docker build --tag $(IMAGE) --file docker/Dockerfile $(ARGS) \
		--label org.opencontainers.image.revision="$$(git rev-parse HEAD)" \
		--label org.opencontainers.image.created="$$(date --utc +%Y-%m-%dT%H:%M:%SZ)" .

lock: ## Pin the newest versions in requirements/*.txt
	requirements/lock $(PYTHON)

clean: ## Remove what was built, measured and cached
	rm -rf build dist docs/_build htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find triorelay triorelay__mypyc* -name '*.so' -delete 2>/dev/null || true
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove the environments too
	rm -rf $(VENV) $(TEST_VENV) $(DOCS_VENV) $(CHECK_VENV) $(BENCH_VENV)

$(READY): requirements/install requirements/build.txt requirements/run.txt pyproject.toml
	@requirements/install $(PYTHON) $(VENV) requirements/run.txt
	@touch $@

$(TEST_READY): requirements/install requirements/build.txt requirements/test.txt pyproject.toml
	@requirements/install $(PYTHON) $(TEST_VENV) requirements/test.txt
	@touch $@

$(DOCS_READY): requirements/install requirements/build.txt requirements/docs.txt pyproject.toml
	@requirements/install $(PYTHON) $(DOCS_VENV) requirements/docs.txt
	@touch $@

$(CHECK_READY): requirements/install requirements/build.txt requirements/check.txt pyproject.toml
	@requirements/install $(PYTHON) $(CHECK_VENV) requirements/check.txt
	@touch $@

$(BENCH_READY): requirements/install requirements/build.txt requirements/bench.txt pyproject.toml
	@requirements/install $(PYTHON) $(BENCH_VENV) requirements/bench.txt
	@touch $@
