# `make serve`, `make quick`, `make test`. Each sets up .venv first, and again when the project's dependencies change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Torch serves on every machine, MLX on Apple Silicon and OpenVINO on x86. Linux gets MLX for the tests' sake: there it runs
# on the CPU. On Linux, pip takes Torch's build with CUDA unless PIP_EXTRA_INDEX_URL names PyTorch's index of CPU
# builds, which is a tenth of the size.
EXTRAS := torch,builtin,tracing,dev
ifeq ($(shell uname -s)-$(shell uname -m),Darwin-arm64)
EXTRAS := $(EXTRAS),mlx
endif
ifeq ($(shell uname -s)-$(shell uname -m),Linux-x86_64)
EXTRAS := $(EXTRAS),openvino,mlx
endif

# Python and pytest then read what they compiled last time.
unexport PYTHONDONTWRITEBYTECODE

PARALLEL := -n auto --maxprocesses 4 --dist loadfile

URL ?= http://127.0.0.1:9000

.PHONY: serve quick test parity parity-versions test-clients test-suites test-recipes test-page fuzz check compat bench bench-engines bench-peers clean

serve: $(VENV)/ready
	$(BIN)/nearfar serve

# Unit tests and the protocol fixtures. Only tests/property needs schemathesis, which is slow to import.
quick: $(VENV)/ready
	$(BIN)/python -m pytest $(PARALLEL) -p no:schemathesis tests/unit

# Every test. Those that measure how long something takes run one at a time.
test: $(VENV)/ready
	$(BIN)/python -m pytest $(PARALLEL) -m "not timing" tests
	$(BIN)/python -m pytest -m timing tests/process

# Compares checkpoints of every kind with the libraries on every engine, and writes the manual's page: half an hour.
parity: $(VENV)/ready
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --parity all tests/parity/test_checkpoints.py tests/parity/test_real_weights.py

# The same with other versions of the libraries. It writes nothing.
parity-versions: $(VENV)/ready
	$(BIN)/python tests/support/parity_versions.py

# Sets up the clients in environments of their own, and runs each against one server: python3 and node are needed.
test-clients: $(VENV)/ready
	$(BIN)/python tests/client_matrix/run.py

# Others' own test suites, unchanged, each in an environment of its own: gigabytes to install, and half an hour.
test-suites: $(VENV)/ready
	$(BIN)/python tests/client_matrix/suites.py

# The manual's recipes as written, each in an environment of its own: a gigabyte to install.
test-recipes: $(VENV)/ready
	$(BIN)/python tests/client_matrix/recipes.py

# The page for browsers in Chromium, as a person uses it: node, npm and Chromium are needed. CHROMIUM names its program.
test-page: $(VENV)/ready
	cd tests/browser && npm install --silent --no-fund --no-audit --no-package-lock
	cd tests/browser && PYTHON=$(abspath $(BIN)/python) node --test --test-concurrency=1 $(wildcard $(CURDIR)/tests/browser/*.test.mjs)

# Over 200,000 inputs for everything that reads what others wrote: some minutes.
fuzz: $(VENV)/ready
	$(BIN)/python -m pytest tests/property --fuzz 100

# The one gate, here and in CI: format, lint, types and every test.
check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(VENV)/ready
	$(BIN)/python benchmarks/server.py

bench-engines: $(VENV)/ready
	$(BIN)/python benchmarks/engines.py

# Replays compat_fixtures against a server that runs: make compat URL=http://127.0.0.1:9000 ARGS="--key KEY --exact"
compat: $(VENV)/ready
	$(BIN)/python compat_fixtures/replay.py --url $(URL) $(ARGS)

# Sets up other servers in environments of their own, some gigabytes, and measures them beside ours.
bench-peers: $(VENV)/ready
	$(BIN)/python benchmarks/peers.py install
	$(BIN)/python benchmarks/peers.py run

clean:
	rm -rf $(VENV) tests/parity/.environments benchmarks/.peers tests/client_matrix/.environments dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nearfar needs Python 3.11 or newer; run: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@
