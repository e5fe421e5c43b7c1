# Every target is documented by its `##` line; `make help` prints them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
PY := .venv/bin/python
# A killed peer's transport may be collected during somebody else's test: shown, but no failure of that test.
UNRAISABLE := -W default::pytest.PytestUnraisableExceptionWarning
export CARGO_TARGET_DIR := $(CURDIR)/engine/target
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1
ENGINE_SOURCES := $(shell find engine -name '*.rs' -not -path '*/target/*' -not -path 'engine/fuzz/*') $(filter-out engine/fuzz/%,$(wildcard engine/*/Cargo.toml)) engine/Cargo.toml engine/Cargo.lock
WEB_SOURCES := $(shell find web -type f -not -path '*/node_modules/*' 2>/dev/null)

.PHONY: help setup run dino test-fast scenarios test check bench bench-quick fuzz format packages

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: pyproject.toml
	@echo "== Python environment"
	test -x $(PY) || python3 -m venv .venv
	.venv/bin/pip install -q $$(python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['dev'])")
	@touch $@

.venv-synapse/.ready:
	@echo "== Synapse environment"
	test -x .venv-synapse/bin/python || python3 -m venv .venv-synapse
	.venv-synapse/bin/pip install -q matrix-synapse==1.163.2
	@touch $@

.venv/.engine: .venv/.ready $(ENGINE_SOURCES)
	@echo "== Engine (release build)"
	PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/maturin develop --release --skip-install -q 2>/dev/null || \
	PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/maturin develop --release -q
	@touch $@

bridge/gateways/web/static/index.html: web/package-lock.json $(WEB_SOURCES)
	@echo "== Guest page"
	cd web && npm ci --no-audit --no-fund --silent && npm run --silent build

tests/peers/web/node_modules/.ready: tests/peers/web/package-lock.json
	@echo "== Element Call and livekit-client for the demonstration and tests"
	cd tests/peers/web && npm ci --no-audit --no-fund --silent
	@touch $@

packages: ## Debian packages of packages.txt (root), or the line to run
	@demo/packages.sh

setup: packages .venv/.ready .venv-synapse/.ready .venv/.engine bridge/gateways/web/static/index.html tests/peers/web/node_modules/.ready ## everything a newcomer needs, with progress

run: setup ## the whole demonstration on this machine; CHECK=1 runs a call unattended and exits
	$(PY) -m demo $(if $(CHECK),--check)

dino: ## start Dino against the running demonstration; HEADLESS=1 without a display, with screenshots
	$(PY) -m demo.dino $(if $(HEADLESS),--headless)

test-fast: .venv/.ready .venv/.engine ## unit and property tests, no servers (<= 2 minutes)
	cd engine && cargo test --release -q --workspace --exclude parley-py
	$(PY) -m pytest -q -m "not peers and not slow" -n 2 || $(PY) -m tests.again -m "not peers and not slow"

scenarios: setup ## real clients and servers; prints a table and writes results/scenarios.json
	$(PY) -m pytest -q -m "peers or slow" tests --timeout 600 --durations=20 $(UNRAISABLE) || \
	$(PY) -m tests.again -m "peers or slow" --timeout 600 $(UNRAISABLE)

test: test-fast scenarios ## test-fast, then scenarios

check: .venv/.ready .venv/.engine ## format, lint, types, import law, stub test, clippy
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m mypy.stubtest sfu._engine
	cd engine && cargo fmt --all --check
	cd engine && cargo clippy --release -q --workspace --all-targets -- -D warnings
	cd engine/fuzz && cargo fmt --check && cargo clippy -q --locked --all-targets -- -D warnings

format: .venv/.ready ## rewrite sources in the house format
	.venv/bin/ruff format . && .venv/bin/ruff check --fix . ; cd engine && cargo fmt --all

bench: .venv/.engine ## all benchmarks (<= 12 minutes); a table, and a dated JSON file in bench/results
	@demo/packages.sh bench/packages.txt || echo "without them what needs them is skipped"
	$(PY) -m bench

bench-quick: .venv/.engine ## ceiling probe and 1 -> 100 receivers through the worker
	$(PY) -m bench.quick

fuzz: .venv/.ready .venv/.engine ## every parser FUZZ_S seconds (20), every property with 5,000 examples
	engine/fuzz/run.sh
	HYPOTHESIS_PROFILE=fuzz $(PY) -m pytest -q -m "hypothesis and not peers and not slow" -n 2 --timeout 1800 tests
	cd engine && PROPTEST_CASES=20000 cargo test --release -q -p parley-core
